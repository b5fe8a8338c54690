"""Screenshots small enough for a repository: PNG with a palette, made by the browser and zlib."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

#: draws the picture, and gives its size, at most 256 colours, and for each pixel which of them
_PALETTE = """async (data) => {
  const answer = await fetch("data:image/png;base64," + data);
  const picture = await createImageBitmap(await answer.blob());
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, picture.width, picture.height).data;
  const counts = new Map();
  const keys = new Uint32Array(pixels.length / 4);
  for (let at = 0; at < keys.length; at += 1) {
    const key = (pixels[4 * at] << 16) | (pixels[4 * at + 1] << 8) | pixels[4 * at + 2];
    keys[at] = key;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const far = (a, b) => [16, 8, 0].reduce((sum, shift) =>
    sum + (((a >> shift) & 255) - ((b >> shift) & 255)) ** 2, 0);
  // each time the colour that the ones before would miss the most
  const missing = new Map([...counts.keys()].map((key) => [key, 1e9]));
  const colours = [];
  while (colours.length < COLOURS && missing.size) {
    const cost = (key) => Math.sqrt(counts.get(key)) * missing.get(key);
    const next = [...missing.keys()].reduce((a, b) => (cost(b) > cost(a) ? b : a));
    colours.push(next);
    missing.delete(next);
    for (const [key, least] of missing) missing.set(key, Math.min(least, far(key, next)));
  }
  const places = new Map(colours.map((colour, place) => [colour, place]));
  for (const key of counts.keys()) {
    if (places.has(key)) continue;
    let best = 0;
    for (let place = 1; place < colours.length; place += 1) {
      if (far(colours[place], key) < far(colours[best], key)) best = place;
    }
    places.set(key, best);
  }
  let text = "";
  const out = Uint8Array.from(keys, (key) => places.get(key));
  for (let at = 0; at < out.length; at += 32768) {
    text += String.fromCharCode(...out.subarray(at, at + 32768));
  }
  return [picture.width, picture.height, colours, btoa(text)];
}"""
#: colours that are kept: four bits a pixel
_COLOURS = 16


def write(context: Any, screenshot: bytes, path: Path) -> None:
    """Writes a screenshot with few colours; `context` is a browser's."""
    page = context.new_page()
    try:
        script = _PALETTE.replace("COLOURS", str(_COLOURS))
        width, height, colours, pixels = page.evaluate(
            script, base64.b64encode(screenshot).decode()
        )
    finally:
        page.close()
    rows = base64.b64decode(pixels)
    lines = b"".join(b"\0" + _packed(rows[at : at + width]) for at in range(0, len(rows), width))
    palette = b"".join(colour.to_bytes(3, "big") for colour in colours)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0))
        + _chunk(b"PLTE", palette)
        + _chunk(b"IDAT", zlib.compress(lines, 9))
        + _chunk(b"IEND", b"")
    )


def _packed(row: bytes) -> bytes:
    """Two pixels a byte."""
    even = row if len(row) % 2 == 0 else row + b"\0"
    return bytes(even[at] << 4 | even[at + 1] for at in range(0, len(even), 2))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
