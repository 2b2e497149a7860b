#!/usr/bin/env python3
"""Keeps the code of one NVIDIA architecture in a library, so that the library compresses well.

    trim.py LIBRARY.so ARCHITECTURE TARGET.so      # e.g. 90 for Hopper

The code of the other architectures becomes zeros. Sizes and offsets stay, so the library loads as before, on GPUs of
that architecture only. The layout of `.nv_fatbin` is that of the CUDA Toolkit 12 and 13.
"""

import struct
import sys

CONTAINER_MAGIC = 0xBA55ED50
ARCHITECTURE_OFFSET = 28


def fatbin_section(library):
    """(offset, size) of the section .nv_fatbin of an ELF file of 64 bits."""
    if library[:5] != b"\x7fELF\x02":
        raise SystemExit("expected an ELF file of 64 bits")
    (headers,) = struct.unpack_from("<Q", library, 0x28)
    size, count, names = struct.unpack_from("<HHH", library, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", library, headers + i * size) for i in range(count)]
    name_table = sections[names][4]
    for s in sections:
        start = name_table + s[0]
        if library[start : library.index(0, start)] == b".nv_fatbin":
            return s[4], s[5]
    raise SystemExit("expected a section .nv_fatbin: the library has no GPU code")


def trim(library, architecture):
    """Clears the other architectures' code in place; returns the bytes (kept, cleared)."""
    offset, size = fatbin_section(library)
    position, kept, cleared = offset, 0, 0
    while position < offset + size - 16:
        magic, _, header, length = struct.unpack_from("<IHHQ", library, position)
        if magic != CONTAINER_MAGIC:
            position += 8
            continue
        entry, end = position + header, position + header + length
        while entry < end:
            _, _, header, length = struct.unpack_from("<HHIQ", library, entry)
            (found,) = struct.unpack_from("<I", library, entry + ARCHITECTURE_OFFSET)
            if found == architecture:
                kept += length
            else:
                library[entry + header : entry + header + length] = bytes(length)
                cleared += length
            entry += header + length
        position = end
    return kept, cleared


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    with open(sys.argv[1], "rb") as f:
        library = bytearray(f.read())
    kept, cleared = trim(library, int(sys.argv[2]))
    if kept == 0:
        raise SystemExit(f"{sys.argv[1]}: expected code for architecture {sys.argv[2]}")
    with open(sys.argv[3], "wb") as f:
        f.write(library)
    print(f"kept {kept >> 20} MiB of GPU code, cleared {cleared >> 20} MiB")


if __name__ == "__main__":
    main()
