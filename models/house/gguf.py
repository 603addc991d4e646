"""Writes GGUF version 3 files (little endian, alignment 32)."""
import struct

import numpy as np

ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
F32, F16 = 0, 1


def _string(text):
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(kind, value):
    if kind == STRING:
        return _string(value)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], value)


def write(path, metadata, tensors):
    """metadata: list of (key, type, value), where a list value is an array of that type.
    tensors: list of (name, float32 array, F32 or F16); the file lists dimensions innermost first."""
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata) + 1),
            _string("general.alignment"), struct.pack("<II", UINT32, ALIGNMENT)]
    for key, kind, value in metadata:
        head.append(_string(key))
        if isinstance(value, list):
            head.append(struct.pack("<IIQ", ARRAY, kind, len(value)))
            head += [_value(kind, v) for v in value]
        else:
            head += [struct.pack("<I", kind), _value(kind, value)]
    blobs, offset = [], 0
    for name, array, kind in tensors:
        blob = np.ascontiguousarray(array, dtype=np.float16 if kind == F16 else np.float32).tobytes()
        head += [_string(name), struct.pack("<I", array.ndim),
                 b"".join(struct.pack("<Q", d) for d in reversed(array.shape)), struct.pack("<IQ", kind, offset)]
        blob += b"\0" * (-len(blob) % ALIGNMENT)
        blobs.append(blob)
        offset += len(blob)
    header = b"".join(head)
    header += b"\0" * (-len(header) % ALIGNMENT)
    with open(path, "wb") as f:
        f.write(header)
        for blob in blobs:
            f.write(blob)
