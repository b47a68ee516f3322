"""Charts as SVG: horizontal bars, one for each contender, readable on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import attrs

#: Beyond this ratio of the longest bar to the shortest the scale is logarithmic: the short ones would not be seen.
LOG_BEYOND = 12.0

_LABEL, _WIDTH, _VALUE = 190, 420, 150
_BAR, _STEP, _TOP = 16, 24, 66
_STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #24292f }
    .title { font-size: 15px; font-weight: 600 }
    .note { font-size: 12px; fill: #57606a }
    .bar { fill: #8c959f }
    .own { fill: #0969da }
    .base { fill: #57606a }
    .grid { stroke: #d0d7de; stroke-width: 1 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .note { fill: #9198a1 }
      .bar { fill: #656c76 }
      .own { fill: #4493f8 }
      .base { fill: #9198a1 }
      .grid { stroke: #3d444d }
    }
"""


@attrs.frozen
class Bar:
    """One bar: who, how much, what is written behind it, and whether it is ours ("own"), the base ("base") or another's."""

    label: str
    value: float
    text: str
    kind: str = "bar"


def render(title: str, note: str, bars: Sequence[Bar]) -> str:
    """Return the chart as an SVG document. The values must be above zero."""
    least, most = min(bar.value for bar in bars), max(bar.value for bar in bars)
    logarithmic = most / least > LOG_BEYOND
    bottom = 10 ** math.floor(math.log10(least) - 0.3) if logarithmic else 0.0

    def place(value: float) -> float:
        if logarithmic:
            return math.log(value / bottom) / math.log(most / bottom) * _WIDTH
        return value / most * _WIDTH

    height = _TOP + _STEP * len(bars) + 8
    scale = "; logarithmic scale, each line is ten times the one before" if logarithmic else ""
    lines = []
    if logarithmic:
        decade = bottom
        while decade <= most:
            at = _LABEL + place(decade)
            lines.append(f'<line class="grid" x1="{at:.1f}" y1="{_TOP - 10}" x2="{at:.1f}" y2="{height - 8}"/>')
            decade *= 10
    for number, bar in enumerate(bars):
        y = _TOP + number * _STEP
        width = max(1.0, place(bar.value))
        lines += [
            f'<text x="{_LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{bar.kind}" x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 12}">{escape(bar.text)}</text>',
        ]
    whole = _LABEL + _WIDTH + _VALUE
    body = "\n  ".join(lines)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}" width="{whole}" height="{height}" role="img">
  <title>{escape(title)}</title>
  <style>{_STYLE}  </style>
  <text class="title" x="8" y="22">{escape(title)}</text>
  <text class="note" x="8" y="42">{escape(note + scale)}</text>
  {body}
</svg>
"""
