// Dots put into pixels by hand: some milliseconds for 20,000 of them, with a graphics card or without one.

// Shares 0..256 that a disc covers of the pixels around its middle, for four places of the middle within a pixel.
function discsOf(radius, alpha) {
  const half = Math.ceil(radius + 0.5), side = 2 * half + 1;
  return [0, 1, 2, 3].map((phase) => {
    const middle = [half + (phase & 1 ? 0.5 : 0), half + (phase & 2 ? 0.5 : 0)], cover = new Uint16Array(side * side);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const inside = radius + 0.5 - Math.hypot(x + 0.25 - middle[0], y + 0.25 - middle[1]);
        cover[y * side + x] = Math.round(256 * alpha * Math.max(0, Math.min(1, inside)));
      }
    }
    return { half, side, cover };
  });
}

function parts(colour) {  // "#rrggbb" or "rgb(r g b)"
  if (colour[0] === "#") return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return colour.match(/\d+/g).map(Number);
}

class Dots {
  constructor() { this.image = null; }

  resize(context, width, height) {
    this.image = width && height ? context.createImageData(width, height) : null;
    this.pixels = this.image && new Uint32Array(this.image.data.buffer);
  }

  clear(paper) {
    const [red, green, blue] = parts(paper);
    this.pixels.fill((0xff000000 | blue << 16 | green << 8 | red) >>> 0);
  }

  stamp(x, y, discs, [red, green, blue]) {
    const { width, height } = this.image, { pixels } = this;
    const column = Math.floor(x), row = Math.floor(y);
    const { half, side, cover } = discs[(x - column >= 0.5 ? 1 : 0) | (y - row >= 0.5 ? 2 : 0)];
    const left = column - half, top = row - half;
    const fromX = Math.max(0, -left), toX = Math.min(side, width - left), fromY = Math.max(0, -top), toY = Math.min(side, height - top);
    for (let j = fromY; j < toY; j++) {
      for (let i = fromX, at = (top + j) * width + left + i; i < toX; i++, at++) {
        const share = cover[j * side + i];
        if (!share) continue;
        const old = pixels[at], r = old & 255, g = old >> 8 & 255, b = old >> 16 & 255;
        pixels[at] = 0xff000000 | b + ((blue - b) * share >> 8) << 16 | g + ((green - g) * share >> 8) << 8 | r + ((red - r) * share >> 8);
      }
    }
  }
}
