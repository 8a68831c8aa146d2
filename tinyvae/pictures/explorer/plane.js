"use strict";
// The plane: two dimensions of the latent space, with codes as dots, the prior as circles, and where z stands.
// It knows codes and places; what is decoded there is the page's.

const DOT_REACH = { mouse: 9, touch: 22, pen: 14 }; // pixels within which a click takes a code
const CLICK = 5; // pixels that a click may wander

class Plane {
  // codes: [{ z, label }]; limits: [low, high] per dimension; circles: [{ radius, name }], the prior's;
  // labels, and names: [[label, name]] of those that are named; colour(label) → CSS colour;
  // thumbnail(i) → canvas with the image of code i; onMove(a, b): dragged there; onPick(i): code i was clicked
  constructor(canvas, options) {
    Object.assign(this, options, { canvas });
    this.pen = canvas.getContext("2d");
    this.back = document.createElement("canvas"); // all that stays while z moves
    this.axes = [0, Math.min(1, limits.length - 1)];
    this.only = null; // the one label shown, or null for all
    this.hover = -1; // the code under the pointer
    this.tiles = null; // a canvas of decoded images, shown instead of the codes
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => (this.start = null));
    canvas.addEventListener("pointerleave", () => this.point(-1));
  }

  // ---------------------------------------------------------------------------------------- places

  // Fits canvas and scale to the room there is: one unit is equally long on both axes.
  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const dpr = window.devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.back]) {
      canvas.width = Math.round(width * dpr);
      canvas.height = Math.round(height * dpr);
    }
    const [across, up] = this.axes.map((d) => this.limits[d]);
    this.unit = this.line
      ? width / (across[1] - across[0])
      : Math.min(width / (across[1] - across[0]), height / (up[1] - up[0]));
    this.middle = [(across[0] + across[1]) / 2, this.line ? 0 : (up[0] + up[1]) / 2];
    Object.assign(this, { width, height, dpr, themes: new Map() });
    this.drawBack();
  }

  // With one dimension there is no second axis: codes are spread over the height, in no order that means anything.
  get line() {
    return this.limits.length === 1;
  }

  // Pixels of a code; `i` spreads it where the plane is a line.
  toPixel(z, i = 0) {
    const [u, v] = this.axes;
    const x = this.width / 2 + (z[u] - this.middle[0]) * this.unit;
    if (this.line) return [x, this.height * (0.1 + 0.8 * ((i * 0.6180339887) % 1))];
    return [x, this.height / 2 - (z[v] - this.middle[1]) * this.unit];
  }

  // The two values of z at a pixel.
  toLatent(x, y) {
    return [(x - this.width / 2) / this.unit + this.middle[0], (this.height / 2 - y) / this.unit + this.middle[1]];
  }

  // The index of the code nearest to a pixel, less than `reach` away; -1 where there is none. y null: at any height.
  nearest(x, y, reach) {
    let [best, found] = [reach * reach, -1];
    this.codes.forEach((code, i) => {
      if (!this.shows(code)) return;
      const [a, b] = this.toPixel(code.z, i);
      const distance = (a - x) ** 2 + (y === null ? 0 : (b - y) ** 2);
      if (distance < best) [best, found] = [distance, i];
    });
    return found;
  }

  shows(code) {
    return !this.tiles && (this.only === null || code.label === this.only);
  }

  // ---------------------------------------------------------------------------------------- pointer

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  press(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.start = this.place(event);
    this.moved = false;
    this.hover = -1;
    this.onMove(...this.toLatent(...this.start));
  }

  move(event) {
    const at = this.place(event);
    if (!this.start) return this.point(event.pointerType === "mouse" ? this.nearest(...at, DOT_REACH.mouse) : -1);
    this.moved = this.moved || Math.hypot(at[0] - this.start[0], at[1] - this.start[1]) > CLICK;
    if (this.moved) this.onMove(...this.toLatent(...at));
  }

  // The pointer stands over code i, or over none.
  point(i) {
    if (i === this.hover) return;
    this.hover = i;
    this.canvas.dispatchEvent(new Event("hover"));
  }

  release(event) {
    if (!this.start) return;
    const found = this.moved ? -1 : this.nearest(...this.start, DOT_REACH[event.pointerType] || DOT_REACH.mouse);
    this.start = null;
    if (found >= 0) this.onPick(found);
  }

  // ---------------------------------------------------------------------------------------- drawing

  // A colour of the style sheet, looked up once: asking makes the browser compute its styles.
  theme(name) {
    if (!this.themes.has(name)) {
      this.themes.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
    }
    return this.themes.get(name);
  }

  // Grid, codes or tiles, the prior, names.
  drawBack() {
    const pen = this.back.getContext("2d");
    pen.setTransform(this.dpr, 0, 0, this.dpr, 0, 0);
    pen.fillStyle = this.theme("panel");
    pen.fillRect(0, 0, this.width, this.height);
    pen.font = "12px system-ui, sans-serif";
    pen.lineJoin = "round";
    this.drawGrid(pen);
    if (this.tiles) pen.drawImage(this.tiles, 0, 0, this.width, this.height);
    else this.drawCodes(pen);
    this.drawCircles(pen);
    if (this.limits.length === 2) this.drawNames(pen);
  }

  drawCodes(pen) {
    const radius = Math.min(3.6, Math.max(1.8, Math.sqrt(9000 / this.codes.length)));
    const colours = new Map([[null, this.colour(null)], ...this.labels.map((label) => [label, this.colour(label)])]);
    pen.globalAlpha = 0.75;
    this.codes.forEach((code, i) => {
      if (!this.shows(code)) return;
      pen.fillStyle = colours.get(code.label);
      disc(pen, ...this.toPixel(code.z, i), radius);
    });
    pen.globalAlpha = 1;
  }

  drawGrid(pen) {
    const { width, height } = this;
    const step = niceStep(70 / this.unit);
    pen.strokeStyle = this.theme("line");
    pen.fillStyle = this.theme("soft");
    pen.lineWidth = 1;
    const [left, top] = this.toLatent(0, 0);
    const [right, bottom] = this.toLatent(width, height);
    for (let n = Math.ceil(left / step); n * step <= right; n++) {
      const x = Math.round((n * step - left) * this.unit) + 0.5;
      stroke(pen, x, 0, x, height);
      if (x > 20 && x < width - 60) write(pen, number(n * step), x, height - 6, "center");
    }
    for (let n = Math.ceil(bottom / step); n * step <= top && !this.line; n++) {
      const y = Math.round((top - n * step) * this.unit) + 0.5;
      stroke(pen, 0, y, width, y);
      if (y > 36 && y < height - 20) write(pen, number(n * step), 6, y + 4, "left");
    }
    pen.fillStyle = this.theme("ink");
    write(pen, `z[${this.axes[0]}] →`, width - 6, height - 6, "right");
    if (!this.line) write(pen, `↑ z[${this.axes[1]}]`, 6, 16, "left");
  }

  // A share of N(0, I) in this plane lies within each circle.
  drawCircles(pen) {
    if (this.line) return;
    pen.strokeStyle = pen.fillStyle = this.theme("soft");
    for (const { radius, name } of this.circles) {
      const [x, y] = [this.width / 2 - this.middle[0] * this.unit, this.height / 2 + this.middle[1] * this.unit];
      pen.setLineDash([5, 4]);
      pen.beginPath();
      pen.arc(x, y, radius * this.unit, 0, 2 * Math.PI);
      pen.stroke();
      pen.setLineDash([]);
      outlined(pen, name, x, y - radius * this.unit - 5, this.theme("panel"));
    }
  }

  // Each label's name at the middle of its codes.
  drawNames(pen) {
    pen.font = "bold 13px system-ui, sans-serif";
    const places = apart(this.names.map(([label]) => this.middleOf(label)), 26);
    this.names.forEach(([label, name], k) => {
      if (this.only !== null && this.only !== label) return;
      const [x, y] = places[k];
      const half = Math.max(10, pen.measureText(name).width / 2 + 6);
      pen.fillStyle = this.theme("panel");
      pen.strokeStyle = this.colour(label);
      pen.lineWidth = 2;
      box(pen, x - half, y - 10, 2 * half, 20, 6);
      pen.fillStyle = this.theme("ink");
      write(pen, name, x, y + 5, "center");
    });
  }

  // The median of a label's codes, in pixels.
  middleOf(label) {
    const own = this.codes.filter((code) => code.label === label).map((code) => this.toPixel(code.z));
    return [0, 1].map((axis) => own.map((place) => place[axis]).sort((a, b) => a - b)[own.length >> 1]);
  }

  // What stays, and on it where z stands, the code under the pointer, and the picked codes with the line between them.
  draw(z, picks) {
    const { pen } = this;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.drawImage(this.back, 0, 0);
    pen.setTransform(this.dpr, 0, 0, this.dpr, 0, 0);
    const [ink, panel] = [this.theme("ink"), this.theme("panel")];
    const places = picks.map((i) => this.toPixel(this.codes[i].z, i));
    pen.lineWidth = 2;
    pen.strokeStyle = ink;
    if (places.length === 2) stroke(pen, ...places[0], ...places[1]);
    pen.font = "bold 13px system-ui, sans-serif";
    places.forEach(([x, y], i) => {
      pen.fillStyle = ink;
      disc(pen, x, y, 10);
      pen.fillStyle = panel;
      write(pen, "AB"[i], x, y + 5, "center");
    });
    this.drawMarker(z, ink, panel);
    if (this.hover >= 0) this.drawThumbnail(this.hover, ink);
  }

  // The image of code i beside its dot, on the side where there is room.
  drawThumbnail(i, ink) {
    const { pen, width, height } = this;
    const [x, y] = this.toPixel(this.codes[i].z, i);
    const image = this.thumbnail(i);
    const zoom = Math.max(1, Math.floor(64 / Math.max(image.width, image.height)));
    const [w, h] = [Math.min(image.width * zoom, 96), Math.min(image.height * zoom, 96)];
    const [left, top] = [x + w + 16 < width ? x + 14 : x - w - 14, inside(y - h / 2, [3, height - h - 3])];
    pen.lineWidth = 2;
    pen.strokeStyle = ink;
    ring(pen, x, y, 7);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image, left, top, w, h);
    pen.strokeRect(left - 1, top - 1, w + 2, h + 2);
  }

  // A cross in a ring, at the border where z lies outside; a line where there is no second axis.
  drawMarker(z, ink, panel) {
    const { pen, width, height } = this;
    let [x, y] = this.toPixel(z);
    [x, y] = [inside(x, [8, width - 8]), this.line ? height / 2 : inside(y, [8, height - 8])];
    for (const [colour, thickness] of [[panel, 5], [ink, 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thickness;
      ring(pen, x, y, 9);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        stroke(pen, x + 5 * dx, y + 5 * dy, x + 15 * dx, y + 15 * dy);
      }
      if (this.line) stroke(pen, x, 0, x, height);
    }
  }
}

// ------------------------------------------------------------------------------------------ strokes

function inside(value, [low, high]) {
  return Math.min(Math.max(value, low), high);
}

// The places, those nearer to each other than `distance` pushed apart, so that names there can be read.
function apart(places, distance) {
  for (let round = 0; round < 100; round++) {
    for (const [i, a] of places.entries()) {
      for (const b of places.slice(i + 1)) {
        const [dx, dy] = [b[0] - a[0] || 1e-3, b[1] - a[1]];
        const push = Math.max(0, distance / Math.hypot(dx, dy) - 1) / 2;
        [a[0], a[1], b[0], b[1]] = [a[0] - push * dx, a[1] - push * dy, b[0] + push * dx, b[1] + push * dy];
      }
    }
  }
  return places;
}

// 1, 2 or 5 times a power of ten, the smallest of them that is at least `least`.
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 5, 10].find((n) => n * power >= least);
}

// A number with a real minus sign and no tail of rounding errors.
function number(value, digits = 12) {
  return String(Number(value.toFixed(digits))).replace("-", "−");
}

function stroke(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

function ring(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.stroke();
}

function disc(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

function box(pen, x, y, width, height, corner) {
  pen.beginPath();
  pen.moveTo(x + corner, y);
  pen.arcTo(x + width, y, x + width, y + height, corner);
  pen.arcTo(x + width, y + height, x, y + height, corner);
  pen.arcTo(x, y + height, x, y, corner);
  pen.arcTo(x, y, x + width, y, corner);
  pen.fill();
  pen.stroke();
}

// Words that can be read on dots.
function outlined(pen, text, x, y, background) {
  const colour = pen.strokeStyle;
  pen.strokeStyle = background;
  pen.lineWidth = 4;
  pen.textAlign = "center";
  pen.strokeText(text, x, y);
  pen.strokeStyle = colour;
  pen.lineWidth = 1;
  write(pen, text, x, y, "center");
}

function write(pen, text, x, y, align) {
  pen.textAlign = align;
  pen.fillText(text, x, y);
}
