import io
import json
import signal

import pytest

from governance.records.errors import InterruptedByUser
from pipelines.current_run.console import Console, StopRequest, folded


def test_plain_progress_prints_the_last_line_of_a_task():
    stream = io.StringIO()
    console = Console(stream=stream)

    for done in range(1, 1001):
        console.progress("decoding", done, 1000)

    assert stream.getvalue() == "  decoding: 1,000 of 1,000\n"


def test_json_lines_are_json():
    stream = io.StringIO()
    console = Console(json_lines=True, stream=stream)

    console.say("hello")
    console.progress("decoding", 5, 5)

    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"message": "hello"},
        {"task": "decoding", "done": 5, "total": 5},
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_is_obeyed_at_the_next_progress_report(number):
    stop = StopRequest()
    console = Console(stream=io.StringIO(), stop=stop)

    with stop.listening():
        signal.raise_signal(number)
        with pytest.raises(InterruptedByUser) as caught:
            console.progress("training", 1, 10)

    assert caught.value.exit_code == 128 + number


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)

    with StopRequest().listening():
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["A" * 20_000, "Voluson " * 2_500])
def test_a_very_long_name_is_not_printed_whole(name):
    stream = io.StringIO()

    Console(stream=stream).warn(f"machine {name}: one image")

    assert len(stream.getvalue()) < 2_200
    assert stream.getvalue().startswith(f"warning: machine {name[:60]}")
    assert folded("short\nlines\n") == "short\nlines\n"
