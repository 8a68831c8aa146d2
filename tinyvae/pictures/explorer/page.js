"use strict";
// The page: one z, moved by the plane, the sliders, the buttons and the walk, and its decoded image after every move.
// It knows what stands where on the page; layers are decoder.js's, dots and circles plane.js's.

const run = JSON.parse(document.getElementById("run").textContent);
const [H, W, C] = run.image_shape;
const L = run.latent_dim;
const $ = (id) => document.getElementById(id);

const decoder = new Decoder(run.layers, run.mean);
const numbers = unpack(run.codes, Float32Array);
const originals = unpack(run.images, Uint8Array);
const count = run.codes.shape[0];
const codes = Array.from({ length: count }, (_, i) => ({
  z: numbers.subarray(i * L, (i + 1) * L),
  label: run.labels ? run.labels[i] : null,
}));
const order = run.activity.map((_, d) => d);
if (L > 2) order.sort((a, b) => run.activity[b] - run.activity[a]); // most used first
const FIRST = 10; // sliders shown until all are asked for
const STEPS = 7; // images of a walk, both ends included
const WALK = 3000; // milliseconds from A to B

let z = new Float64Array(L); // the one place where we are
let picks = []; // indices of the codes A and B
let along = null; // where on the line from A to B, 0 to 1; null where z is elsewhere
let playing = null; // when the walk now playing left A; null when none is
const decoding = { count: 0, milliseconds: 0 }; // how many images, and how long the last twenty took

// ------------------------------------------------------------------------------------------ images

const clip = (value) => Math.min(Math.max(value, 0), 1);

// Pixels from 0 to 1 onto a canvas, one canvas pixel each: grey, colour, colour and opacity, or the mean of C channels.
function paint(canvas, pixels) {
  if (canvas.width !== W || canvas.height !== H) [canvas.width, canvas.height] = [W, H];
  const picture = new ImageData(W, H);
  const bytes = picture.data; // rounds what is put into it
  for (let p = 0; p < H * W; p++) {
    let mean = 0;
    for (let c = 0; c < C; c++) mean += clip(pixels[p * C + c]) / C;
    const opacity = C === 4 ? clip(pixels[p * 4 + 3]) : 1;
    for (let c = 0; c < 3; c++) {
      const value = C === 3 || C === 4 ? clip(pixels[p * C + c]) : mean;
      bytes[p * 4 + c] = 255 * (value * opacity + (1 - opacity)); // on white
    }
    bytes[p * 4 + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function original(i) {
  const size = H * W * C;
  return Float32Array.from(originals.subarray(i * size, (i + 1) * size), (byte) => byte / 255);
}

const small = document.createElement("canvas");

// The real image of a code, for the plane to draw.
function thumbnail(i) {
  paint(small, original(i));
  return small;
}

// A small captioned image; its canvas is filled by `paint`.
function figure(pixels, caption, words, className) {
  const element = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.className = "pixels";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
  paint(canvas, pixels);
  const below = document.createElement("figcaption");
  below.textContent = caption;
  element.append(canvas, below);
  element.className = className;
  return element;
}

// ------------------------------------------------------------------------------------------ one frame

let asked = false;

// Asks for a new frame; many calls before the next one are one.
function refresh() {
  if (!asked) requestAnimationFrame(frame);
  asked = true;
}

function frame(now) {
  asked = false;
  if (playing !== null) {
    stand(clip((now - playing) / WALK));
    if (along === 1) playing = null;
    else refresh();
  }
  const start = performance.now();
  const pixels = decoder.decode(z);
  decoding.milliseconds += performance.now() - start;
  decoding.count += 1;
  if (decoding.count % 20 === 0) showSpeed();
  paint($("image"), pixels);
  plane.draw(z, picks);
  showNumbers();
}

// Two decimals, a real minus sign, and no minus before zeros.
function fixed(value) {
  return (Math.round(value * 100) / 100 + 0).toFixed(2).replace("-", "−");
}

// The numbers beside the images: they follow z.
function showNumbers() {
  const few = `z = (${Array.from(z, fixed).join(", ")})`;
  $("place").textContent = L <= 3 ? few : plane.axes.map((d) => `z[${d}] ${fixed(z[d])}`).join(" · ");
  $("image").setAttribute("aria-label", `Image decoded at ${$("place").textContent}`);
  for (const { d, input, words } of sliders) {
    input.value = z[d];
    words.textContent = fixed(z[d]);
    input.setAttribute("aria-valuetext", fixed(z[d]));
  }
  $("play").textContent = playing === null ? "Play" : "Stop";
  const nearest = along === null || picks.length < 2 ? -1 : Math.round(along * (STEPS - 1));
  $("strip").querySelectorAll(".step").forEach((step, i) => step.classList.toggle("now", i === nearest));
}

function showSpeed() {
  const each = (decoding.milliseconds / 20).toFixed(1);
  $("speed").textContent = `; your browser decodes an image in ${each} ms`;
  decoding.milliseconds = 0;
}

// ------------------------------------------------------------------------------------------ moving z

// z moves by hand: a walk ends.
function go(values) {
  playing = along = null;
  z = Float64Array.from(values);
  refresh();
}

function moveOnPlane(a, b) {
  const next = z.slice();
  const [u, v] = plane.axes;
  if (L > 1) next[v] = inside(b, limits[v]);
  next[u] = inside(a, limits[u]);
  go(next);
}

// z ~ N(0, I), or from the Gaussian of `prior`.
function draw(prior) {
  const eps = Array.from(z, () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()));
  go(prior ? prior.mean.map((m, i) => m + prior.factor[i].reduce((sum, f, j) => sum + f * eps[j], 0)) : eps);
}

// Where the sliders and the plane end: all codes are inside, and so are 0 and, for a VAE, nearly all of the prior.
const limits = run.activity.map((_, d) => {
  const reach = run.prior ? 0 : 3;
  let [low, high] = [-reach, reach];
  for (const code of codes) [low, high] = [Math.min(low, code.z[d]), Math.max(high, code.z[d])];
  const margin = (high - low || 2) * 0.04;
  return [low - margin, high + margin];
});

// ------------------------------------------------------------------------------------------ the walk

function nameOf(label) {
  return run.label_names ? run.label_names[label] : String(label);
}

function described(i) {
  if (run.drawn) return `draw ${i}`;
  return codes[i].label === null ? `image ${i}` : `image ${i}, “${nameOf(codes[i].label)}”`;
}

// (1 − t) · A + t · B
function between(t) {
  const [a, b = a] = picks.map((i) => codes[i].z);
  return Float64Array.from(a, (value, d) => (1 - t) * value + t * b[d]);
}

function stand(t) {
  z = between(t);
  $("along").value = along = t;
}

// A code is picked: the first is A, the second B, a third is A again.
function pick(i) {
  picks = picks.length === 2 ? [i] : [...picks, i];
  go(codes[i].z);
  showWalk();
  if (picks.length === 2 && !matchMedia("(prefers-reduced-motion: reduce)").matches) play();
}

function play() {
  const t = Number($("along").value);
  playing = performance.now() - (t < 1 ? t : 0) * WALK;
  refresh();
}

function stop() {
  playing = null;
  refresh();
}

function showWalk() {
  const strip = $("strip");
  strip.replaceChildren();
  $("along").value = 0;
  $("ride").hidden = picks.length < 2;
  $("walk-names").textContent = picks.map((i, k) => `${"AB"[k]}: ${described(i)}`).join(" → ");
  if (!picks.length) {
    const hint = document.createElement("p");
    const ends = run.drawn ? "" : ", real images at both ends";
    hint.textContent = `Pick two codes on the plane: what lies between them is shown here${ends}.`;
    strip.append(hint);
    return;
  }
  const real = (i) => figure(original(i), "real", `real ${described(i)}`, "real");
  const decoded = (t, caption) => figure(decoder.decode(between(t)), caption, `decoded at ${caption}`, "step");
  if (!run.drawn) strip.append(real(picks[0])); // what was drawn has no image but the decoded one
  strip.append(decoded(0, "A"));
  if (picks.length === 1) return;
  for (let k = 1; k < STEPS - 1; k++) strip.append(decoded(k / (STEPS - 1), number(k / (STEPS - 1), 2)));
  strip.append(decoded(1, "B"));
  if (!run.drawn) strip.append(real(picks[1]));
}

function clearWalk() {
  picks = [];
  showWalk();
  stop();
}

// ------------------------------------------------------------------------------------------ sliders, labels, axes

const largest = Math.max(...run.activity, 1e-9);

function makeSlider(d, rank) {
  const row = document.createElement("div");
  row.className = "slider";
  row.hidden = rank >= FIRST;
  row.innerHTML = `<label for="z${d}">z[${d}]</label><input type="range" id="z${d}" step="any"><span></span>`;
  if (L > 2) {
    row.insertAdjacentHTML("beforeend", `<div class="use"><i></i></div><small>${run.activity[d].toFixed(2)}</small>`);
    row.querySelector("i").style.width = `${(100 * Math.max(run.activity[d], 0)) / largest}%`;
  }
  const input = row.querySelector("input");
  [input.min, input.max] = limits[d];
  input.addEventListener("input", () => {
    const next = z.slice();
    next[d] = Number(input.value);
    go(next);
  });
  $("sliders").append(row);
  return { d, row, input, words: row.querySelector("span") };
}

function colourOf(label) {
  if (label === null) return plane.theme("accent");
  const place = labels.indexOf(label);
  return labels.length <= 10 ? plane.theme(`label${place}`) : `hsl(${(360 * place) / labels.length} 65% 50%)`;
}

const labels = run.labels ? [...new Set(run.labels)].sort((a, b) => a - b) : [];

// A button for each label: it is shown alone, and all again.
function makeLegend() {
  $("legend").replaceChildren();
  if (labels.length > 30) return;
  for (const label of labels) {
    const button = document.createElement("button");
    const dot = document.createElement("i");
    dot.style.background = colourOf(label);
    button.append(dot, nameOf(label));
    button.setAttribute("aria-pressed", String(plane.only === label));
    button.addEventListener("click", () => {
      plane.only = plane.only === label ? null : label;
      [...$("legend").children].forEach((b, i) => b.setAttribute("aria-pressed", String(plane.only === labels[i])));
      plane.drawBack();
      refresh();
    });
    $("legend").append(button);
  }
}

function makeAxes() {
  $("axes").hidden = L < 3;
  ["axis-u", "axis-v"].forEach((id, side) => {
    for (const d of order) $(id).add(new Option(`z[${d}] · ${run.activity_name} ${run.activity[d].toFixed(2)}`, d));
    $(id).value = plane.axes[side];
    $(id).addEventListener("change", () => {
      const before = plane.axes[side];
      plane.axes[side] = Number($(id).value);
      if (plane.axes[0] === plane.axes[1]) plane.axes[1 - side] = before; // they change places
      ["axis-u", "axis-v"].forEach((other, k) => ($(other).value = plane.axes[k]));
      fit();
    });
  });
}

// ------------------------------------------------------------------------------------------ the whole plane

const TILE = 36; // pixels of an image's longer side

// Shows what is decoded all over the plane, or the codes again: a few milliseconds' work per frame, so nothing waits.
function decodeEverywhere(wanted) {
  $("everywhere").setAttribute("aria-pressed", String(wanted));
  $("everywhere").setAttribute("aria-busy", String(wanted));
  const tiles = (plane.tiles = wanted ? document.createElement("canvas") : null);
  plane.drawBack();
  refresh();
  if (!wanted) return;
  [tiles.width, tiles.height] = [plane.canvas.width, plane.canvas.height];
  const pen = tiles.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.scale(plane.dpr, plane.dpr);
  const [w, h] = [W, H].map((side) => (TILE * side) / Math.max(W, H));
  const [across, down] = [Math.ceil(plane.width / w), Math.ceil(plane.height / h)];
  let n = 0;
  const some = () => {
    if (plane.tiles !== tiles) return; // no longer wanted
    for (const end = performance.now() + 8; n < across * down && performance.now() < end; n++) {
      const [x, y] = [(n % across) * w, Math.floor(n / across) * h];
      paint(small, decoder.decode(plane.toLatent(x + w / 2, y + h / 2)));
      pen.drawImage(small, x, y, w, h);
    }
    plane.drawBack();
    refresh();
    if (n < across * down) requestAnimationFrame(some);
    else $("everywhere").setAttribute("aria-busy", "false");
  };
  some();
}

// ------------------------------------------------------------------------------------------ keys

function key(event) {
  const step = (event.shiftKey ? 24 : 6) / plane.unit;
  const [u, v] = plane.axes;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  if (event.key in moves) {
    const [a, b] = moves[event.key];
    moveOnPlane(z[u] + a, z[v] + b);
  } else if (event.key === "Enter") {
    const [x, y] = plane.toPixel(z);
    const found = plane.nearest(x, plane.line ? null : y, Infinity);
    if (found >= 0) pick(found);
  } else if (event.key === "Escape") {
    clearWalk();
  } else {
    return;
  }
  event.preventDefault();
}

// ------------------------------------------------------------------------------------------ beginning

const plane = new Plane($("plane"), {
  codes, limits, labels, colour: colourOf, thumbnail, onMove: moveOnPlane, onPick: pick,
  names: labels.length <= 30 ? labels.map((label) => [label, nameOf(label)]) : [],
  circles: run.prior ? [] : [{ radius: 1.1774, name: "50 % of the prior" }, { radius: 2.4477, name: "95 %" }],
});
if (L > 2) plane.axes = order.slice(0, 2);
const sliders = order.map(makeSlider);

$("title").textContent = `${run.model} on ${run.data}`;
document.title = `${run.model} on ${run.data} · tinyvae explore`;
const many = count.toLocaleString("en");
const what = run.drawn ? `${many} draws of z ~ N(0, I)` : `codes of ${many} test images`;
$("facts").textContent = `${L} latent dimension${L > 1 ? "s" : ""}, ${what}`;
document.querySelector("main").classList.toggle("many", L > 2);
const use = run.activity_name === "KL" ? "KL, nats" : "variance of z";
$("order").textContent = L > 2 ? `most used first (${use})` : "";
$("weights").textContent = run.weights.toLocaleString("en");
$("more").textContent = `Show all ${L}`;
$("more").hidden = L <= FIRST;
$("more").addEventListener("click", () => {
  sliders.forEach(({ row }) => (row.hidden = false));
  $("more").hidden = true;
});
$("plane").addEventListener("keydown", key);
$("plane").addEventListener("hover", refresh);
$("random").addEventListener("click", () => draw(null));
$("fitted").hidden = !run.prior;
if (run.prior) $("random").textContent = "Random, N(0, I)";
$("fitted").addEventListener("click", () => draw(run.prior));
$("everywhere").hidden = L !== 2;
$("everywhere").addEventListener("click", () => decodeEverywhere(!plane.tiles));
$("zero").addEventListener("click", () => go(new Float64Array(L)));
$("play").addEventListener("click", () => (playing === null ? play() : stop()));
$("along").addEventListener("input", () => {
  playing = null;
  stand(Number($("along").value));
  refresh();
});
$("clear").addEventListener("click", clearWalk);
$("image").className = "pixels";

// Whole screen pixels per image pixel, so that all of them are of one size.
function fitImage() {
  const dpr = window.devicePixelRatio || 1;
  const room = $("frame").clientWidth;
  const zoom = Math.max(1, Math.floor((room * dpr) / Math.max(H, W))) / dpr;
  $("image").style.width = `${Math.min(W * zoom, room)}px`;
}

function fit() {
  fitImage();
  plane.fit();
  if (plane.tiles) decodeEverywhere(true);
  const axes = (L > 1 ? plane.axes : [0]).map((d) => `z[${d}]`).join(" and ");
  $("plane").setAttribute("aria-label", `Plane of ${axes}, with ${run.drawn ? "draws of z" : "the codes of test images"}`);
  refresh();
}

makeAxes();
fit();
makeLegend();
showWalk();
new ResizeObserver(fit).observe($("plane"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  fit();
  makeLegend();
});
$("trouble").textContent = "";
