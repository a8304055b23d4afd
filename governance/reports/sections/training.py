"""The sections on training and on figures and samples."""

from governance.records.duplicates import DuplicateAudit
from governance.records.run import Figures
from governance.records.training import (
    Curve,
    Elsewhere,
    PretrainedComponent,
    RepeatRecord,
    SampleSet,
    TrainingRecord,
)
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Cell,
    Facts,
    Heading,
    LineChart,
    Picture,
    Section,
    Series,
    Table,
    Text,
    cell,
    cells,
    columns,
    mono,
    small,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.sections.data_duplicates import duplicate_figures
from governance.reports.sections.software import repeat_block

_POINTS_DRAWN = 400
_CANDIDATES_SHOWN = 8
_LOSSES_IN_MAIN_PART = 2
_PREVIEWS = "figures/preview"  # of the images while training
# Content losses compare images with images; beside adversarial losses they would look flat.
_QUANTITIES = {
    "content loss": "content loss",
    "loss": "loss",
    "gradient norm": "gradient norm",
    "learning rate": "learning rate",
    "discriminator on": "output of the discriminator",
}


def training_section(evidence: ReportEvidence) -> Section:
    """Show the model, its training data, the course of training and the choice of checkpoint."""
    training = evidence.get(TrainingRecord)
    if training is None:
        none: tuple[Block, ...] = (Text("This run left no trained model."),)
        return Section("training", "5", "Training", main=none)
    if training.elsewhere:
        size = f"{training.image_size_px} {formats.TIMES} {training.image_size_px} px"
        told: tuple[Block, ...] = (
            Text(elsewhere_sentence(training.elsewhere)),
            Facts((("Image size", cell(size)),)),
            Heading("Components made by others"),
            pretrained_block(training.pretrained),
        )
        return Section("training", "5", "Training", main=told)
    charts = curve_charts(training.curves)
    losses = tuple(chart for chart in charts if "loss" in chart.title)[:_LOSSES_IN_MAIN_PART]
    main: tuple[Block, ...] = (
        Facts(training_rows(training)),
        stage_table(training),
        *losses,
        Heading("Choice of the checkpoint"),
        *_selection(training),
    )
    others: tuple[Block, ...] = tuple(chart for chart in charts if chart not in losses)
    if not charts:
        others = (Text("No curve was recorded."),)
    curves = (Heading("Curves"), *others) if others else ()
    blocks: tuple[Block, ...] = (
        Heading("Model"),
        Facts(tuple((name, cell(text)) for name, text in sorted(training.description.items()))),
        *curves,
        Heading("First steps made twice"),
        repeat_block(evidence.get(RepeatRecord)),
        Heading("Fitted things and the view each was fitted on"),
        _fitted(training),
        Heading("Components made by others"),
        pretrained_block(training.pretrained),
    )
    return Section("training", "5", "Training", blocks=blocks, main=main)


def elsewhere_sentence(elsewhere: Elsewhere) -> str:
    """Say that nothing was trained in this run, and whether the training images are known."""
    given = (
        "The images that their generator was trained on were given."
        if elsewhere.has_training
        else "The images that their generator was trained on were not given: copies of them cannot "
        "be found. What is called training images here are real images set aside for floors and "
        "controls."
    )
    return (
        f"Nothing was trained in this run: it assesses {elsewhere.n_images:,} images that were made "
        f"elsewhere (sha256:{formats.short(elsewhere.sha256)}). {given}"
    )


def training_rows(training: TrainingRecord) -> tuple[tuple[str, Cell], ...]:
    """Return names and values of the training as a whole."""
    return (
        ("Generator", cell(f"{training.title} ({training.generator})")),
        ("Recipe", cell(training.recipe)),
        (
            "Image size",
            cell(f"{training.image_size_px} {formats.TIMES} {training.image_size_px} px"),
        ),
        ("Trained on", cell(training.compute_device)),
        ("Time", cell(formats.duration(training.duration_s))),
        ("Training images seen", cell(_images_seen(training))),
        ("Training view", cell(mono(training.training_view_sha256))),
        ("Tuning view", cell(mono(training.tuning_view_sha256))),
        ("Checkpoint", cell(mono(training.checkpoint_path), mono(training.checkpoint_sha256))),
    )


def _images_seen(training: TrainingRecord) -> str:
    """Return the images drawn from the training view over all updates, with repetitions."""
    return formats.count(sum(stage.n_steps * stage.batch_size for stage in training.stages))


def stage_table(training: TrainingRecord) -> Table:
    """Return a table with one row for each training stage."""
    head = columns(
        ("Stage", 0.125),
        ("Parameters", 0.135, "right"),
        ("Steps", 0.08, "right"),
        ("Batch", 0.075, "right"),
        ("Time", 0.115, "right"),
        ("Images/s", 0.125, "right"),
        ("Precision", 0.12),
        ("Processes", 0.13, "right"),
        ("Memory", 0.095, "right"),
    )
    rows = tuple(
        cells(
            stage.name,
            formats.count(stage.n_parameters),
            formats.count(stage.n_steps),
            formats.count(stage.batch_size),
            formats.duration(stage.duration_s),
            formats.number(stage.images_per_s),
            stage.precision,
            formats.count(stage.n_processes),
            _memory(stage.peak_memory_bytes),
        )
        for stage in training.stages
    )
    note = (
        "Batch: images an update, over all processes together. Memory: the most that one process "
        "held at once; on a CPU that is all of its memory."
    )
    return Table(head, rows, note)


def _memory(n_bytes: int | None) -> str:
    return "not measured" if n_bytes is None else f"{n_bytes / 2**30:.2f} GiB"


def curve_charts(curves: tuple[Curve, ...]) -> tuple[LineChart, ...]:
    """Return one chart for each stage and quantity; curves of one quantity share a chart."""
    grouped: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        grouped.setdefault((curve.stage, _quantity(curve.name)), []).append(curve)
    return tuple(
        LineChart(
            title=f"{stage}: {quantity}",
            x_label="training step",
            y_label=f"{quantity} (no unit)" if quantity.endswith("loss") else quantity,
            series=tuple(_series(curve) for curve in members),
        )
        for (stage, quantity), members in grouped.items()
    )


def _quantity(name: str) -> str:
    """Return the quantity that comparable curves of a stage share; else the curve's name."""
    return next((shown for part, shown in _QUANTITIES.items() if part in name), name)


def _series(curve: Curve) -> Series:
    n = len(curve.steps)
    stride = max(1, -(-n // _POINTS_DRAWN))
    places = sorted({*range(0, n, stride), n - 1}) if n else []
    drawn = f"{curve.name}, every {stride} points" if stride > 1 else curve.name
    return Series(
        drawn,
        tuple(float(curve.steps[place]) for place in places),
        tuple(curve.values[place] for place in places),
    )


def _selection(training: TrainingRecord) -> tuple[Block, ...]:
    choice = training.selection
    text = (
        f"Chosen by {choice.criterion} on the {choice.partition} partition "
        f"({formats.short(choice.view_sha256)}): step {formats.count(choice.chosen_step)} of "
        f"{formats.counted(len(choice.candidates), 'candidate')}."
    )
    rows = tuple(
        (
            cell(formats.count(candidate.step)),
            cell(formats.number(candidate.score)),
            cell(strong("chosen") if candidate.step == choice.chosen_step else ""),
        )
        for candidate in choice.candidates[:_CANDIDATES_SHOWN]
    )
    more = len(choice.candidates) - len(rows)
    note = f"{formats.count(more)} more in metrics/training.json." if more > 0 else ""
    head = columns(("Step", 0.2, "right"), ("Score", 0.25, "right"), ("", 0.55))
    return (Text(text), Table(head, rows, note)) if rows else (Text(text),)


def _fitted(training: TrainingRecord) -> Block:
    if not training.fitted:
        return Text("Nothing besides the weights was fitted to data.")
    rows = tuple(
        (
            cell(thing.name),
            cell(mono(formats.short(thing.fit_view_sha256))),
            cell(_view(training, thing.fit_view_sha256)),
        )
        for thing in training.fitted
    )
    return Table(columns(("Fitted", 0.45), ("View", 0.30), ("Which is", 0.25)), rows)


def _view(training: TrainingRecord, digest: str) -> str:
    if digest == training.training_view_sha256:
        return "the training view"
    return "the tuning view" if digest == training.tuning_view_sha256 else "another view"


def pretrained_block(components: tuple[PretrainedComponent, ...]) -> Block:
    """Return a table of pretrained weights, or the sentence that there are none."""
    if not components:
        return Text("No weights made by others were used.")
    rows = tuple(
        (
            cell(part.name, small(part.used_for)),
            cell(part.source, mono(formats.short(part.sha256))),
            cell(part.licence),
            cell(part.training_data, small(_overlap(part))),
        )
        for part in components
    )
    head = columns(("Component", 0.28), ("Source", 0.30), ("Licence", 0.16), ("Trained on", 0.26))
    return Table(head, rows)


def _overlap(part: PretrainedComponent) -> str:
    """Return the overlap with this data set, and who declared it."""
    whose = f", declared by {part.declared_by}" if part.declared_by else ""
    return f"overlap with this data set: {part.overlap}{whose}"


def samples_section(evidence: ReportEvidence) -> Section:
    """Show the sample set and the pictures of the run."""
    figures = evidence.get(Figures)
    blocks: list[Block] = []
    previews: list[Block] = []
    samples = evidence.get(SampleSet)
    if samples is None:
        blocks.append(Text("No synthetic image was made in this run."))
    else:
        blocks.append(Facts(sample_rows(evidence)))
        blocks.append(
            Text("Synthetic images are made by the generator; none shows a patient.", "note")
        )
    of_pairs = duplicate_figures(evidence.get(DuplicateAudit))
    for figure in figures.figures if figures else ():
        if figure.path in of_pairs:
            continue  # shown beside its pair
        picture = evidence.pictures[figure.path]
        (previews if figure.path.startswith(_PREVIEWS) else blocks).append(
            Picture(
                figure.title,
                figure.caption,
                figure.path,
                picture.data,
                picture.media_type,
                picture.width_px,
                picture.height_px,
            )
        )
    title = "Figures and synthetic samples"
    return Section("samples", "6", title, blocks=tuple(previews), main=tuple(blocks))


def sample_rows(evidence: ReportEvidence) -> tuple[tuple[str, Cell], ...]:
    """Return names and values of the sample set; empty when there is none."""
    samples = evidence.get(SampleSet)
    if samples is None:
        return ()
    marks = (
        f"{formats.count(samples.n_marks_read_back)} of {formats.count(samples.n_images)} images "
        "say in their own metadata that they are synthetic (read back after saving)"
    )
    return (
        ("Synthetic images", cell(formats.count(samples.n_images))),
        ("Image size", cell(f"{samples.image_size_px} {formats.TIMES} {samples.image_size_px} px")),
        ("Seed", cell(str(samples.seed))),
        ("Made by checkpoint", cell(mono(samples.checkpoint_sha256))),
        ("Synthetic marking", cell(marks)),
        ("Time", cell(formats.duration(samples.duration_s))),
    )
