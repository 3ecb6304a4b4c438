"""What is no picture that we read, whatever its name says."""

import gzip
import io
import zipfile

from .cases import Picture, encode, noise, picture

_SVG = b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>"
_LAUGHS = b"".join(b"<!ENTITY l%d '%s'>" % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))


def pictures() -> list[Picture]:
    """All of them: each must be refused."""
    small = picture(8, 8)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr(zipfile.ZipInfo("picture.png"), encode(small, "PNG"))
    contents = {
        "empty": b"",
        "one-byte": b"\xff",
        "line-break": b"\n",
        "text": b"a picture, honestly\n",
        "text-utf-16": "a picture, honestly\n".encode("utf-16"),
        "html": b"<!DOCTYPE html><html><body><img src='x.jpg'></body></html>",
        "svg": _SVG,
        "svg-of-a-billion-laughs": b"<!DOCTYPE svg [<!ENTITY l0 'ha'>" + _LAUGHS + b"]><svg>&l9;</svg>",
        "svg-squeezed": gzip.compress(_SVG, mtime=0),
        "svg-that-reads-a-file": b"<!DOCTYPE svg [<!ENTITY f SYSTEM 'file:///etc/passwd'>]><svg>&f;</svg>",
        "pdf": b"%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj\ntrailer << /Root 1 0 R >>\n%%EOF\n",
        "eps": encode(small, "EPS"),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n{ } loop\n",
        "zip": archive.getvalue(),
        "jpeg-squeezed": gzip.compress(encode(small, "JPEG"), mtime=0),
        "icon-with-png": encode(small, "ICO"),
        "cursor": b"\0\0\2\0\1\0" + encode(small, "ICO")[6:],
        "apple-icon": b"icns\0\0\1\x10ic07\0\0\1\x08" + encode(small, "PNG"),
        "ppm": encode(small, "PPM"),
        "ppm-of-a-billion": b"P5 1000000000 1000000000 255 ",
        "tga": encode(small, "TGA"),
        "pcx": encode(small, "PCX"),
        "sgi": encode(small, "SGI"),
        "xbm": encode(small.convert("1"), "XBM"),
        "msp": encode(small.convert("1"), "MSP"),
        "dib-without-file-header": encode(small, "DIB"),
        "photoshop": b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x08\0\0\0\x08\0\x08\0\3" + bytes(200),
        "windows-metafile": b"\xd7\xcd\xc6\x9a" + bytes(40),
        "fits": b"SIMPLE  =                    T".ljust(2880),
        "avif-by-name": b"\0\0\0\x20ftypavif" + bytes(20) + noise(100),
        "jpeg-2000-by-name": b"\0\0\0\x0cjP  \r\n\x87\n" + noise(100),
        "program": b"\x7fELF\2\1\1" + noise(200),
        "pickle": b"\x80\4\x95\x10\0\0\0\0\0\0\0\x8c\2os\x8c\6system\x93.",
        "zeros": bytes(1_000_000),
        "noise": noise(1_000_000),
    }
    return [Picture(f"other-{name}", data, "error") for name, data in contents.items()]
