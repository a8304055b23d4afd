"""Records of self-tests, made up."""

from datetime import UTC, datetime

from governance.records.selftest import GuardAnswer, NotPlanted, PlantTrial, SelftestRecord

CAUGHT = GuardAnswer(
    guard="L000",
    status="stopped",
    is_alarm=True,
    exit_code=4,
    sentence="patient 5 is on both sides",
)
SILENT = GuardAnswer(
    guard="L000", status="did not stop it", is_alarm=False, exit_code=None, sentence=""
)


def trial(about, *, answers=(CAUGHT,), control=(SILENT,), fault=""):
    return PlantTrial(
        name=f"{about} plant",
        about=about,
        planted=f"a leak about {about}",
        expected=("L000",),
        failure_exit_code=4,
        answers=answers,
        control=control,
        is_caught=any(answer.is_alarm for answer in answers),
        is_control_clean=not any(answer.is_alarm for answer in control),
        duration_s=1.25,
        fault=fault,
    )


def record(*trials):
    return SelftestRecord(
        scope="quick",
        started_utc=datetime(2026, 1, 1, tzinfo=UTC),
        trials=trials,
        not_planted=(NotPlanted(name="x", planted="a loss", reason="needs training"),),
        duration_s=4.5,
    )


ALL = (trial("patient"), trial("duplicate"), trial("early read"))
