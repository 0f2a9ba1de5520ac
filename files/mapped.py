"""Copies of tensors that are mapped to a file.

A mapped tensor is only as safe as its file. If the file is overwritten, the tensor changes. If it is truncated, the next access
ends the process (SIGBUS). So what stays in use is copied. On Linux the copy is read from the file, not through the mapping: no
mapped page becomes part of the process's memory, and a file that shrinks meanwhile gives an error.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BadFile

MAPS = Path("/proc/self/maps")
"""Linux lists a process's mappings here: addresses, permissions, offset, device, inode and path of each."""


@dataclass(frozen=True)
class _Mapping:
    """A part of a file in this process's memory."""

    start: int
    stop: int
    offset: int
    inode: int
    path: Path


class OwnCopies:
    """Copies tensors into memory of their own. Make one after the tensors have been mapped."""

    def __init__(self) -> None:
        self._mappings = _mappings()

    def copy(self, tensor: Tensor, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Copy a tensor.

        Args:
            tensor: Any tensor, mapped or not.
            device: Device of the copy; the CPU by default.
            dtype: Type of the copy; the tensor's own by default.

        Returns:
            A tensor that shares its memory neither with the given one nor with a file.

        Raises:
            BadFile: The file is shorter than it was when it was mapped.
        """
        device, dtype = torch.device(device or "cpu"), dtype or tensor.dtype
        read = None if device.type == "meta" else self._read(tensor)
        return tensor.to(device, dtype, copy=True) if read is None else read.to(device, dtype)

    def _read(self, tensor: Tensor) -> Tensor | None:
        """Read a mapped tensor from its file; None if it is not mapped, or if another file has taken the path."""
        if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.numel() == 0:
            return None
        start, size = tensor.data_ptr(), tensor.element_size()
        count = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
        own = next((m for m in self._mappings if m.start <= start and start + count * size <= m.stop), None)
        if own is None:
            return None
        read = torch.empty(count * size, dtype=torch.uint8)
        try:
            with own.path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_ino != own.inode:
                    return None
                file.seek(own.offset + start - own.start)
                view, done = read.numpy().data, 0
                while done < len(view):
                    if not (more := file.readinto(view[done:])):
                        raise BadFile(
                            f"{own.path.name} became shorter while it was being read: it has "
                            f"{os.fstat(file.fileno()).st_size:,} bytes now. Wait until it is complete, then load it again."
                        )
                    done += more
        except OSError:
            return None
        flat = read.view(tensor.dtype)
        return flat.view(tensor.shape) if tensor.is_contiguous() else flat.as_strided(tensor.shape, tensor.stride()).clone()


def own_copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy the tensors of a state dict to the CPU's memory.

    Raises:
        BadFile: As `OwnCopies.copy`.
    """
    copies = OwnCopies()
    return {key: copies.copy(tensor) for key, tensor in state.items()}


def _mappings() -> list[_Mapping]:
    """List the mapped files of this process; empty on other systems than Linux."""
    found = []
    try:
        lines = MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    for line in lines:
        addresses, permissions, offset, _, inode, *path = line.split(maxsplit=5)
        if path and permissions.startswith("r") and path[0].startswith("/"):
            start, stop = (int(address, 16) for address in addresses.split("-"))
            found.append(_Mapping(start, stop, int(offset, 16), int(inode), Path(path[0].replace("\\012", "\n"))))
    return found
