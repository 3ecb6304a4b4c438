"""Hostile JPEG and MPO files. Markers and segments are those of ITU-T T.81, annex B."""

import re
import struct

from PIL import Image

from .cases import Expected, Picture, broken_exif, encode, noise, patched, picture, truncated

_SOF0, _DHT, _SOI, _EOI, _SOS, _DQT, _DRI, _COM, _APP = 0xC0, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xFE, 0xE0


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def bomb_of_scans(width: int, height: int, scans: int) -> bytes:
    """A grey progressive JPEG: a hundred bytes a scan say of every block that nothing is added to it."""
    blocks = -(-width // 8) * -(-height // 8)
    run = 16384  # blocks that one symbol (EOB14, then 14 bits that add to it) passes over
    bits = ("0" + "0" * 14) * -(-blocks // run)
    bits += "1" * (-len(bits) % 8)
    body = bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))
    scan = segment(_SOS, b"\1\1\0" + bytes([1, 63, 0])) + body
    return b"".join(
        [
            b"\xff\xd8",
            segment(_DQT, b"\0" + b"\1" * 64),
            segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"),
            segment(_DHT, b"\x10\1" + bytes(15) + b"\xe0"),
            scan * scans,
            b"\xff\xd9",
        ]
    )


def with_segment(data: bytes, marker: int, content: bytes, times: int = 1) -> bytes:
    """The file with a segment behind its first marker."""
    return data[:2] + segment(marker, content) * times + data[2:]


def _frame(data: bytes) -> int:
    """Where the content of the frame header (SOF0 or SOF2, of any number of components) lies."""
    match = re.search(rb"\xff[\xc0\xc2]\0.\x08", data, re.DOTALL)
    assert match is not None
    return match.end() - 1


def resized(data: bytes, width: int, height: int) -> bytes:
    """The file with another size in its frame header, and the same data."""
    return patched(data, _frame(data) + 1, struct.pack(">HH", height, width))


def _mpo(entries: int, size: int, offset: int) -> bytes:
    """An MPF segment (CIPA DC-007) that announces more pictures than there are."""
    index = b"II*\0\x08\0\0\0" + struct.pack("<H", 3)
    index += struct.pack("<HHI4s", 0xB000, 7, 4, b"0100")
    index += struct.pack("<HHII", 0xB001, 4, 1, entries)
    index += struct.pack("<HHII", 0xB002, 7, 16 * min(entries, 4), 50) + bytes(4)
    return b"MPF\0" + index + struct.pack("<IIIHH", 0x030000, size, offset, 0, 0) * min(entries, 4)


def pictures() -> list[Picture]:
    """All of them."""
    good = encode(picture(), "JPEG")
    progressive = encode(picture(), "JPEG", progressive=True)
    cmyk = encode(picture(mode="CMYK"), "JPEG")
    frame = _frame(good)
    tables = good.find(b"\xff\xc4") + 4
    scan = good.find(b"\xff\xda")
    entropy = scan + 14
    no_tables = bytearray(good)
    while (start := no_tables.find(b"\xff\xc4")) > 0:
        del no_tables[start : start + 2 + int.from_bytes(no_tables[start + 2 : start + 4], "big")]

    def sized(width: int, height: int, data: bytes = good) -> bytes:
        return resized(data, width, height)

    adobe = b"Adobe\0\x64\0\0\0\0"
    cases: list[tuple[str, bytes, Expected]] = [
        ("progressive", progressive, "answer"),
        ("cmyk-adobe", cmyk, "answer"),
        ("cmyk-without-adobe", cmyk.replace(b"Adobe", b"Other"), "answer"),
        ("cmyk-as-ycck", cmyk.replace(adobe + b"\0", adobe + b"\2"), "answer"),
        ("rgb-by-adobe-marker", with_segment(good, 0xEE, adobe + b"\0"), "answer"),
        ("adobe-transform-99", with_segment(good, 0xEE, adobe + b"\x63"), "answer"),
        ("adobe-marker-cut", with_segment(good, 0xEE, b"Adobe"), "either"),
        ("1x1", encode(picture(1, 1), "JPEG"), "answer"),
        ("65500-wide", encode(picture(65500, 1, "L"), "JPEG"), "answer"),
        ("65500-high", encode(picture(1, 65500, "L"), "JPEG"), "answer"),
        ("size-65500x65500", sized(65500, 65500), "error"),
        ("size-65535x65535", sized(65535, 65535), "error"),
        ("size-10000x10000", sized(10000, 10000), "error"),
        ("size-larger-than-data", sized(2000, 2000), "either"),
        ("size-smaller-than-data", sized(8, 8), "either"),
        ("size-larger-progressive", sized(2000, 2000, progressive), "either"),
        ("width-0", sized(0, 24), "error"),
        ("height-0", sized(40, 0), "error"),
        ("12-bits", patched(good, frame, b"\x0c"), "error"),
        ("0-components", patched(good, frame + 5, b"\0"), "error"),
        ("2-components", patched(good, frame + 5, b"\2"), "error"),
        ("255-components", patched(good, frame + 5, b"\xff"), "error"),
        ("sampling-0", patched(good, frame + 7, b"\0"), "error"),
        ("sampling-15", patched(good, frame + 7, b"\xff"), "error"),
        ("quantization-table-3", patched(good, frame + 8, b"\3"), "error"),
        ("lossless", patched(good, frame - 3, b"\xc3"), "error"),
        ("hierarchical", patched(good, frame - 3, b"\xc5"), "error"),
        ("arithmetic-in-name", patched(good, frame - 3, b"\xc9"), "either"),
        ("progressive-in-name", patched(good, frame - 3, b"\xc2"), "either"),
        ("baseline-in-name", patched(progressive, _frame(progressive) - 3, b"\xc0"), "either"),
        ("frame-twice", good[:scan] + good[frame - 4 : frame + 15] + good[scan:], "either"),
        ("frame-twice-larger", good[:scan] + sized(60000, 60000)[frame - 4 : frame + 15] + good[scan:], "error"),
        ("frame-behind-scan-larger", good[:-2] + sized(60000, 60000)[frame - 4 : frame + 15] + b"\xff\xd9", "either"),
        ("start-twice", b"\xff\xd8" + good, "either"),
        ("codes-too-many", patched(good, tables + 1, b"\xff" * 16), "error"),
        ("codes-overlap", patched(good, tables + 1, b"\3"), "error"),
        ("code-tables-missing", bytes(no_tables), "either"),
        ("quantization-of-0", good.replace(good[good.find(b"\xff\xdb") + 5 :][:64], bytes(64)), "either"),
        ("quantization-table-cut", good[:2] + segment(_DQT, b"\0" + b"\1" * 20) + good[2:], "error"),
        ("segment-of-length-0", good[:2] + b"\xff\xec\0\0" + good[2:], "either"),
        ("segment-of-length-1", good[:2] + b"\xff\xec\0\1" + good[2:], "either"),
        ("segment-beyond-the-end", good[:2] + b"\xff\xec\xff\xff" + good[2:], "error"),
        ("no-scan", good[:scan] + b"\xff\xd9", "error"),
        ("no-pixels", good[:entropy] + b"\xff\xd9", "either"),
        ("no-end", good[:-2], "error"),
        ("noise-behind-the-end", good + noise(10_000), "answer"),
        ("two-files-in-one", good + good, "answer"),
        ("noise-for-pixels", good[:entropy] + noise(2000).replace(b"\xff", b"") + b"\xff\xd9", "either"),
        ("markers-for-pixels", good[:entropy] + b"\xff\xd0" * 2000 + b"\xff\xd9", "either"),
        ("scan-of-9-components", patched(good, scan + 4, b"\x09"), "error"),
        ("scan-of-unknown-component", patched(good, scan + 5, b"\x77"), "error"),
        ("restart-after-each-block", good[:scan] + segment(_DRI, b"\0\1") + good[scan:], "either"),
        ("restart-cut", good[:scan] + segment(_DRI, b"\0") + good[scan:], "error"),
        ("megabyte-of-fill", good[:2] + b"\xff" * 1_000_000 + good[2:], "answer"),
        ("10000-comments", with_segment(good, _COM, b"x", 10_000), "answer"),
        ("10000-parts-of-exif", with_segment(good, _APP + 1, b"Exif\0\0II", 10_000), "answer"),
        ("profile-garbage", with_segment(good, _APP + 2, b"ICC_PROFILE\0\1\1" + noise(400)), "answer"),
        ("profile-0-of-0", with_segment(good, _APP + 2, b"ICC_PROFILE\0\0\0x"), "answer"),
        ("profile-1-of-255", with_segment(good, _APP + 2, b"ICC_PROFILE\0\1\xffx"), "answer"),
        ("profile-cut", with_segment(good, _APP + 2, b"ICC_PROFILE\0"), "either"),
        ("profile-of-cmyk", encode(picture(), "JPEG", icc_profile=bytes(16) + b"CMYKLab " + bytes(104)), "answer"),
        (
            "photoshop-lies",
            with_segment(good, _APP + 13, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\xff\xff\xff\xff"),
            "answer",
        ),
        ("photoshop-cut", with_segment(good, _APP + 13, b"Photoshop 3.0\x008BIM\x03\xed"), "either"),
        ("jfif-cut", with_segment(good, _APP, b"JFIF"), "either"),
        ("several-lie", with_segment(good, _APP + 2, _mpo(65535, 2**32 - 1, 2**32 - 1)), "either"),
        ("several-none", with_segment(good, _APP + 2, _mpo(0, 0, 0)), "either"),
        ("several-itself", with_segment(good, _APP + 2, _mpo(4, 0, 0)), "either"),
        ("several-garbage", with_segment(good, _APP + 2, b"MPF\0" + noise(200)), "either"),
        ("first-3-bytes", b"\xff\xd8\xff", "error"),
        ("start-and-end", b"\xff\xd8\xff\xd9", "error"),
        ("scans-without-end", bomb_of_scans(4000, 4000, 5_000), "error"),
        ("hundred-scans", bomb_of_scans(400, 400, 100), "answer"),
    ]
    cases += [
        (f"exif-{name}", with_segment(good, _APP + 1, b"Exif\0\0" + data[:65_000]), "answer")
        for name, data in broken_exif().items()
    ]
    several = encode(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (100, 100))])
    second = several.rfind(b"\xff\xc0\0\x11") + 5
    return [
        *truncated("jpeg", good),
        *truncated("jpeg-progressive", progressive),
        *(Picture(f"jpeg-{name}", data, expected) for name, data, expected in cases),
        Picture("mpo-second-65500x65500", patched(several, second, struct.pack(">HH", 65500, 65500)), "answer"),
    ]
