"""Cards of one model or of several side by side, on one self-contained page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research import report

from .calibration import brier_score, diagram, reliability
from .card import Card


def page(cards: Sequence[Card], *, title: str = "Evaluation card", footer: str = "") -> str:
    """The whole page; models stand side by side.

    Raises:
      ValueError: no card, or two of one name.
    """
    if not cards or len({card.model for card in cards}) != len(cards):
        raise ValueError(f"a page needs cards of models with different names; got {[card.model for card in cards]}")
    lead = "Means with 95 % bootstrap intervals over the items."
    return report.document(title, lead, sections(cards), footer=footer)


def sections(cards: Sequence[Card]) -> list[str]:
    """The parts of the page, for a page that shows more than cards."""
    parts: list[Callable[[Sequence[Card]], str]] = [_accuracy, _calibration, _robustness, _fairness, _toxicity]
    return [*(part(cards) for part in parts), _efficiency(cards), *_notes(cards)]


def interval(values: Sequence[float]) -> str:
    """low, mean, high as text."""
    low, mean, high = values
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _accuracy(cards: Sequence[Card]) -> str:
    tasks = list(dict.fromkeys(task for card in cards for task in card.accuracy))
    rows = []
    for task in tasks:
        metrics = dict.fromkeys(metric for card in cards for metric in card.accuracy.get(task, {}))
        for metric in metrics:
            shown = [card.accuracy.get(task, {}).get(metric) for card in cards]
            rows.append([task, metric, max(card.items.get(task, 0) for card in cards), *map(_shown, shown)])
    shared = [task for task in tasks if all(task in card.accuracy for card in cards)]
    groups = {
        task.replace("/", "\n"): {card.model: _triple(next(iter(card.accuracy[task].values()))) for card in cards}
        for task in shared
    }
    drawing = [_bars(groups, "first metric of each task", "Every task's first metric.")] if groups else []
    return report.section("Accuracy", report.table(["task", "metric", "items", *_names(cards)], rows), *drawing)


def _calibration(cards: Sequence[Card]) -> str:
    curves = {card.model: reliability(card.confidence, card.correct) for card in cards if card.confidence}
    if not curves:
        return report.section("Calibration", report.note("Not measured: no task has choices with scores."))
    rows = []
    for card in cards:
        if card.model in curves:
            mean = [sum(values) / len(values) for values in (card.confidence, card.correct)]
            score = brier_score(card.confidence, np.array(card.correct))
            found = [curves[card.model].ece, curves[card.model].mce, score, *mean]
            rows.append([card.model, len(card.correct), *(f"{value:.3f}" for value in found)])
    drawing = report.curves(
        diagram(curves), x_label="confidence in the chosen answer", y_label="share of right answers", size=(5.2, 3.6)
    )
    header = ["model", "answers", "ECE", "largest gap", "Brier score", "mean confidence", "right"]
    return report.section(
        "Calibration",
        report.table(header, rows),
        report.figure(report.svg(drawing), "Reliability: 15 bins of equal width."),
        lead="Whether a model is right as often as it is sure: probabilities of the choices, made to sum to one.",
    )


def _robustness(cards: Sequence[Card]) -> str:
    return _compared(
        "Robustness",
        {card.model: card.robustness for card in cards},
        "Right answers when the question has typos, another case or more blanks; worst: right in every version.",
    )


def _fairness(cards: Sequence[Card]) -> str:
    blocks = []
    for kind in dict.fromkeys(kind for card in cards for kind in card.fairness):
        having = [card for card in cards if kind in card.fairness]
        versions = list(having[0].fairness[kind]["right"])
        rows = []
        for card in having:
            found = card.fairness[kind]
            shown = [interval(found["right"][version]) for version in versions]
            rows.append([card.model, found["items"], *shown, interval(found["worst"]), f"{found['same']:.3f}"])
        blocks.append(report.table([kind, "items", *versions, "worst", "answered alike"], rows))
    rows = [
        [card.model, kind, found["items"], interval(found["difference"]), f"{found['p']:.3f}"]
        for card in cards
        for kind, found in card.bias.items()
    ]
    if rows:
        blocks.append(report.text("Bias: right answers about women less those about men, same items."))
        blocks.append(report.table(["model", "between", "items", "difference", "p"], rows))
    if not blocks:
        blocks.append(report.note("Not measured: no item speaks of people by name or pronoun."))
    return report.section(
        "Fairness and bias", *blocks, lead="The same questions about somebody else: other first names, other pronouns."
    )


def _toxicity(cards: Sequence[Card]) -> str:
    having = [card for card in cards if card.toxicity]
    if not having:
        return report.section("Toxicity", report.note("Not measured: no scorer was given."))
    kinds = list(dict.fromkeys(kind for card in having for kind in card.toxicity["kinds"]))
    rows = []
    for card in having:
        found = card.toxicity
        shown = [_shown(found["kinds"].get(kind)) for kind in kinds]
        rows.append([card.model, found["texts"], f"{found['threshold']:.2f}", interval(found["share"]), *shown])
    scorers = dict.fromkeys(card.toxicity.get("scorer", "") for card in having)
    return report.section(
        "Toxicity",
        report.table(["model", "texts", "threshold", "share above it", *kinds], rows),
        *(report.note(scorer) for scorer in scorers if scorer),
        lead="Share of continuations that a scorer trained on people's choices finds toxic.",
    )


def _efficiency(cards: Sequence[Card]) -> str:
    names = list(dict.fromkeys(name for card in cards for name in card.efficiency))
    if not names:
        return report.section("Efficiency", report.note("Not measured."))
    rows = [[name, *(_number(card.efficiency.get(name)) for card in cards)] for name in names]
    return report.section("Efficiency", report.table(["", *_names(cards)], rows))


def _notes(cards: Sequence[Card]) -> list[str]:
    blocks = [report.text(f"{card.model}: {note}") for card in cards for note in card.notes]
    return [report.section("Notes", *blocks)] if blocks else []


def _compared(title: str, found: Mapping[str, Mapping[str, Sequence[float]]], lead: str) -> str:
    """A table of intervals and their bars, models side by side."""
    versions = list(dict.fromkeys(version for values in found.values() for version in values))
    if not versions:
        return report.section(title, report.note("Not measured."))
    rows = [[version, *(_shown(values.get(version)) for values in found.values())] for version in versions]
    whole = [v for v in versions if all(v in values for values in found.values())]
    groups = {version: {model: _triple(values[version]) for model, values in found.items()} for version in whole}
    drawing = [_bars(groups, "share of right answers", lead)] if groups else []
    return report.section(title, report.table(["", *found], rows), *drawing, lead=lead)


def _bars(groups: Mapping[str, Mapping[str, tuple[float, float, float]]], label: str, caption: str) -> str:
    width = min(10.0, 3.4 + 0.9 * len(groups))
    return report.figure(report.svg(report.bars(groups, y_label=label, size=(width, 3.2))), caption)


def _names(cards: Sequence[Card]) -> list[str]:
    return [card.model for card in cards]


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    low, mean, high = values
    return low, mean, high


def _shown(values: Any) -> str:
    return "" if values is None else interval(values)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
