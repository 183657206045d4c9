"""What an HDF5 file must not hold, as reading it would leave the file or fill the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from ep_neuro.storage.value_checks import swollen


def danger(path: str | Path) -> str | None:
    """The first thing in HDF5 file `path` that makes it unsafe to read; None if it is plain.

    A plain file holds groups and data sets, each under one name, and nothing of other files; what
    it unpacks to is in proportion to its size.

    Raises
    ------
    OSError, RuntimeError, KeyError, ValueError, TypeError
        What h5py raises on a damaged file.
    """
    packed, unpacked = Path(path).stat().st_size, 0
    with h5py.File(path, "r") as file:
        seen = {h5py.h5o.get_info(file.id).addr}
        groups: list[Any] = [file]
        while groups:
            group = groups.pop()
            for name in group:
                where = f"{group.name.rstrip('/')}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    return f"'{where}' is a link to elsewhere"
                part = group[name]
                address = h5py.h5o.get_info(part.id).addr
                if address in seen:
                    return f"'{where}' is another name of an object that has one"
                seen.add(address)
                if isinstance(part, h5py.Group):
                    groups.append(part)
                elif isinstance(part, h5py.Dataset):
                    if part.is_virtual or part.external:
                        return f"'{where}' lies in another file"
                    unpacked += (part.size or 0) * part.dtype.itemsize
    return swollen(unpacked, packed)
