"""Metrics: which direction is better, and how a value is shown. Imports nothing heavy.

The metrics of a task are in its row of `finetune.tasks.TASKS`; the metrics of pretraining are here.

Values are stored as the tasks compute them (mIoU from 0 to 1, RMSE in metres) and shown as papers
print them (mIoU from 0 to 100): in the terminal, in reports and in the dashboard alike.
"""

from __future__ import annotations

from dataclasses import dataclass

_PERCENT = 100.0

RETRIEVAL = "retrieval"
"""Task name for the metrics of pretraining on held-out pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a metric is shown. `primary` metrics decide; the others only appear in the table.

    A shown value is the stored one times `scale`, with `digits` decimals and `unit` behind it.
    """

    name: str
    label: str
    higher_is_better: bool
    scale: float = 1.0
    digits: int = 3
    unit: str = ""
    primary: bool = False

    @property
    def heading(self) -> str:
        """Return the label with the unit as shown: "mIoU (%)", "RMSE (m)", "AbsRel"."""
        unit = "%" if self.scale == _PERCENT else self.unit
        return f"{self.label} ({unit})" if unit else self.label

    def is_possible(self, value: float) -> bool:
        """Whether a stored value is possible: a fraction is not negative.

        pycocotools returns -1 where there is nothing to find, and older versions stored it as an
        AP.
        """
        return self.scale != _PERCENT or value >= 0

    def number(self, value: float, *, signed: bool = False) -> str:
        """Format a stored value, or a difference of two, as it is shown, without its unit."""
        text = f"{value * self.scale:{'+' if signed else ''}.{self.digits}f}"
        return text.replace("-", "\u2212")

    def amount(self, value: float) -> str:
        """Format a stored value with its unit: "2.1 mIoU", "0.031 m RMSE"."""
        return f"{self.number(value)} {f'{self.unit} ' if self.unit else ''}{self.label}"


def percent(name: str, *, label: str = "", primary: bool = False) -> Metric:
    """Make a metric from 0 to 1 (higher is better) that is shown from 0 to 100."""
    return Metric(
        name=name,
        label=label or name,
        higher_is_better=True,
        scale=_PERCENT,
        digits=1,
        primary=primary,
    )


RETRIEVAL_METRICS = (
    percent("image_to_text_r1", label="image to text R@1", primary=True),
    percent("image_to_text_r5", label="image to text R@5"),
    percent("text_to_image_r1", label="text to image R@1"),
    percent("text_to_image_r5", label="text to image R@5"),
    Metric(name="word_auroc", label="zero-shot AUROC", higher_is_better=True),
)
"""Metrics of pretraining on held-out pairs; the first one decides."""
