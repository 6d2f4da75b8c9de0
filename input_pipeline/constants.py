"""Numbers that every record of one source has, so that losses can tell the sources of a mixture apart."""

import math
from collections.abc import Mapping
from typing import Any

from input_pipeline.around import Around


class Constants(Around):
    """A source whose records have more columns, each the same number in all of them.

    A loss that takes one as its `weight` leaves out, or weighs, the rows of a source: images without captions, for example, count in a
    loss of views and, with `named` 0, neither as queries nor as candidates in one of images and texts.

    Args:
        source: any source.
        constants: number by column, `{"named": 0.0}`, which becomes an array float32 [B].

    Raises:
        ValueError: a column that records have already, a value that is no number, or no columns at all.
    """

    def __init__(self, source: Any, constants: Mapping[str, float]):
        if not isinstance(constants, Mapping):
            raise ValueError(f"constants is {constants!r}; set it to numbers by column, dict(named=0.0) for example.")
        record = source[0]
        for name, value in constants.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"constants.{name} is {value!r}; set it to a finite number, such as 0.0.")
            if name in record:
                raise ValueError(f"constants.{name}: records have a column of that name; give it one besides: {', '.join(record)}.")
        super().__init__(source)
        self._constants = {name: float(value) for name, value in constants.items()}

    def _changed(self, i: int, record: Mapping[str, Any]) -> dict[str, Any]:
        return dict(record) | self._constants
