"""The model card for people."""

from __future__ import annotations

from typing import Any

from galpipe.lvm.encoder import ModelSettings

LIMITS = """\
- Parameters, detection, restoration and redshift were learned from a mock sky: their columns are tagged `mock only`; nothing of them is a
  measurement of a real galaxy. Morphology columns say answer by answer whether real votes, mapped answers or the mock taught them.
- Real galaxies reached the model as pictures (JPEG route) of large, bright galaxies; what it learned there is not proven on survey pixels.
- `z_mock` reproduces the mock's redshifts, which follow from its colors and sizes; it says nothing about real redshifts.
- Questions that few are asked learn least: see `spiral-winding` and `edge-on-bulge` among the scores.
- Detection: clumps and arms of resolved galaxies may count as objects of their own. Purity of the constant answer is 1, because the central
  object alone is always true.
- Sizes and shapes lean on the mock's relation of size and magnitude.
- Stamps of 39.8 arcsec: larger galaxies are cut off, their sizes and magnitudes are wrong.
- Magnitudes are dereddened, because the pixels are.
- Restored images are for the eye: sharpened to 0.85 of the stamp's own PSF (FWHM, per band); no flux may be measured on them.
- `galpipe train` with the code and settings above repeats itself bit by bit on the same kind of processor and with the same
  real galaxies and the same model to begin from; elsewhere it agrees in the scores, because sums depend on the processor.
- Intervals were calibrated on mock stamps (figures under `calibration` in card.json); what they hold on real stamps is not known.
"""


def card_text(card: dict[str, Any], settings: ModelSettings) -> str:
    """Markdown text of ``MODEL_CARD.md``.

    Parameters
    ----------
    card : dict
        Content of ``card.json`` with training facts and scores.
    settings : ModelSettings
    """
    training = card["training"]
    own = training["settings"]
    lines = [
        f"# {card['name']} {card['version']}",
        "",
        "SwinV2 encoder (timm) with a light decoder and heads for " + ", ".join(settings.heads) + ". Weights: safetensors, float16.",
        "",
        "## Training",
        "",
        f"- Mock: {training['stamps']} stamps of {len(training['train_bricks'])} bricks ({own['sky']} mock sky {training['sky_version']},"
        f" DR9 and DR10 layout, north and south), seeds {own['sky_seed']} to {own['sky_seed'] + own['bricks'] - 1};"
        f" {len(training['calibration_bricks'])} more calibrate, {len(training['held_bricks'])} more are scored below.",
        *_began(training),
        *_real(training),
        f"- Every head on mock stamps, and the embedding on real ones in the same steps: {own['polish_steps']} steps of {own['batch']} mock"
        f" and {own['joint_batch'] if training['real_stamps'] else 0} real stamps, seed {own['seed']}.",
        *_metric(training),
        f"- Heads alone on the finished encoder, morphology excepted: {own['settle_steps']} steps of {own['batch']} mock stamps.",
        f"- Time: {training['seconds'] / 60:.0f} minutes, {own['threads']} thread(s), {training['processor']}, code {training['code']}.",
        "",
        "## Scores on held-out mock bricks",
        "",
        "Every figure stands beside that of a constant answer.",
    ]
    if training.get("note"):
        lines.insert(lines.index("## Scores on held-out mock bricks") - 1, f"- {training['note']}")
    for brick, heads in card["scores"].items():
        lines += [
            "",
            f"### Brick {brick.split('-')[0]}",
            "",
            "| head | figure | model | constant | constant is | n |",
            "|---|---|---|---|---|---|",
        ]
        for head, scores in heads.items():
            lines += [_row(head, score) for score in scores]
    return "\n".join([*lines, "", "## Limits", "", LIMITS])


def _began(training: dict[str, Any]) -> list[str]:
    own = training["settings"]
    if training["began"]:
        return [f"- Began from {training['began']}."]
    return [
        f"- Pre-training: masked reconstruction, {own['pretrain_steps']} steps of {own['batch']} stamps, mock and real.",
        f"- First multi-task training: {own['finetune_steps']} steps of {own['batch']} mock stamps.",
    ]


def _metric(training: dict[str, Any]) -> list[str]:
    told = training.get("metric")
    if not told:
        return []
    return [
        f"- The embedding's metric: {told['answers']:.0f} answers of people, over {told['galaxies']:.0f} real galaxies, made the axes long"
        f" along which they tell galaxies apart (effectively {told['axes']:.0f} axes count); a linear map, nothing is lost."
    ]


def _real(training: dict[str, Any]) -> list[str]:
    """What real galaxies taught: pixels of every set, labels of which."""
    own = training["settings"]
    if not training["real_stamps"]:
        return ["- No real galaxies."]
    lines = [
        f"- Distillation: a teacher (EfficientNet-Lite0 with ImageNet weights, tuned for {own['teacher_steps']} steps on the labels below)"
        f" and those labels taught the encoder, {own['distill_steps']} steps of {own['real_batch']} augmented real galaxies by the"
        " JPEG route.",
        "",
        "| real set | galaxies whose pixels trained | of these, whose labels trained |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {counts['galaxies']} | {counts['answered']} |" for name, counts in training["real_sets"].items()]
    return [*lines, ""]


def _row(head: str, score: dict[str, Any]) -> str:
    unit = f" {score['unit']}" if score["unit"] else ""
    mark = "" if score["beats_constant"] else " (worse)"
    return (
        f"| {head} | {score['name']} | {score['value']:.3f}{unit}{mark} | {score['constant']:.3f}{unit} |"
        f" {score['constant_is']} | {score['count']} |"
    )
