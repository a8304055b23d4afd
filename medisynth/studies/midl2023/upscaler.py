"""Finding on the wiring of the published upscaler; `networks` counts its parameters."""

from medisynth.studies.midl2023.findings import CODE, PAPER, Finding, Verdict, count, not_evaluated

_NUMBER, _TITLE = "5.3", "Wiring of the upscaler"
_CLAIM = '"then scale them up to 256x256 using SRGAN", citing Ledig et al. 2017'
_WHERE = f"{PAPER}, section 2.1 Diffusion-Super-Resolution-GAN"
_RULE = (
    "network of 64 channels and 5 residual blocks, 2 x enlargement, one backward pass; parameters "
    "whose gradient is None"
)


def upscaler_wiring(faulty: tuple[int, int], correct: tuple[int, int]) -> Finding:
    """Report the share of the published upscaler that never gets a gradient.

    Args:
        faulty: Numbers of parameters without a gradient and of all, wired as published.
        correct: The same with each layer reading the layer before it.
    """
    values = (
        count("parameters without a gradient, as published", faulty[0], _RULE, of=faulty[1]),
        count(
            "parameters without a gradient, each layer reading the one before",
            correct[0],
            "the same network in the wiring of Ledig et al.",
            of=correct[1],
        ),
    )
    return Finding(
        _NUMBER,
        _TITLE,
        _CLAIM,
        _WHERE,
        values,
        Verdict.NOT_AS_STATED if faulty[0] else Verdict.REPRODUCED,
        "The residual blocks are not those of the cited network: only the last layer of each takes "
        "part, the others stay as they were drawn."
        if faulty[0]
        else "Every parameter takes part.",
        "a network built here in both wirings",
        "the wiring: each layer of a residual block is given the block's input "
        f"({CODE}, notebooks/difussion-super-resolution-gan/DSRGAN.ipynb)",
    )


def upscaler_wiring_missing() -> Finding:
    """Return finding 5.3 as not evaluated, since networks were not requested."""
    reason = "networks were not asked for; give --networks"
    return not_evaluated(_NUMBER, _TITLE, claim=_CLAIM, where=_WHERE, reason=reason, source="none")
