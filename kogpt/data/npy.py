"""A flat array as a .npy file that is written piece by piece: the number of elements is known only at the end.

numpy pads the header of a flat array to 128 bytes, whatever its length, so it is filled in last. The file appears,
complete, with `close` (kogpt.common.files).
"""

from pathlib import Path

import numpy as np

from kogpt.common.files import atomic_write

HEADER_BYTES = 128


class NpyWriter:
    """Writes one flat array."""

    def __init__(self, path: Path, dtype: np.dtype):
        self._dtype, self._length = dtype, 0
        self._writing = atomic_write(path)
        self._file = self._writing.__enter__()
        self._file.write(bytes(HEADER_BYTES))

    def __len__(self) -> int:
        return self._length

    def write(self, array: np.ndarray) -> None:
        """Append a flat array of the dtype."""
        self._file.write(array.data)
        self._length += len(array)

    def close(self) -> None:
        self._file.seek(0)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._writing.__exit__(None, None, None)
