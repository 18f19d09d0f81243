"""What the standard library is made of; its shared libraries are found by loading all of it."""

import ctypes
import glob
import json
import os
import sys


class _Object(ctypes.Structure):
    """The beginning of struct dl_phdr_info."""

    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))


def loaded() -> list[str]:
    """Paths of the libraries in this process, as the linker names them and so looks for them."""
    names: list[str] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Object), ctypes.c_size_t, ctypes.c_void_p)
    def add(entry, size, data):
        names.append(os.fsdecode(entry.contents.name or b""))
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(add, None)
    return [name for name in names if name.startswith("/")]


def main() -> None:
    """Prints a JSON list: the folders and files of the standard library, then the shared libraries."""
    folders = sys.path[1:]  # without that of this package
    for folder in folders:
        for path in glob.glob(f"{folder}/*.so"):
            if "_tkinter" in path:  # a dozen libraries for windows, which there is no screen for
                continue
            try:
                ctypes.CDLL(path)
            except OSError:  # one whose library is not installed cannot be imported either
                continue
    print(json.dumps([*folders, *loaded()]))
