// The map: what is seen of it, how it is drawn, and what a pointer does to it. Knows films by row.

const canvas = at("map"), stage = at("stage"), context = canvas.getContext("2d", { alpha: false }), dots = new Dots();
const view = { scale: 1, left: 0, top: 0, whole: 1, width: 0, height: 0, dots: 1 };
const shown = { colour: slotsOf(null), palette: ["#888888"], ink: "#888888", paper: "#ffffff", hidden: new Set(), hovered: -1, chosen: -1, near: [], selected: null, drawn: [], version: 0 };
const listeners = { hover: () => {}, choose: () => {}, select: () => {} };
let tool = "move", painted = "", waiting = false;

const bounds = (() => {
  const found = { left: 1, right: 0, top: 1, bottom: 0 };
  for (let i = 0; i < num; i++) {
    found.left = Math.min(found.left, xs[i]); found.right = Math.max(found.right, xs[i]);
    found.top = Math.min(found.top, ys[i]); found.bottom = Math.max(found.bottom, ys[i]);
  }
  return found;
})();

const toX = (x) => (x - view.left) * view.scale, toY = (y) => (y - view.top) * view.scale;
const isVisible = (i) => !shown.hidden.has(shown.colour.slots[i]);

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function fit() {
  const margin = Math.min(56, view.width * 0.08), across = bounds.right - bounds.left || 0.02, down = bounds.bottom - bounds.top || 0.02;
  view.scale = view.whole = Math.min((view.width - 2 * margin) / across, (view.height - 2 * margin) / down);
  view.left = (bounds.left + bounds.right) / 2 - view.width / 2 / view.scale;
  view.top = (bounds.top + bounds.bottom) / 2 - view.height / 2 / view.scale;
  redraw();
}

function zoom(factor, x = view.width / 2, y = view.height / 2) {
  const next = Math.max(view.whole * 0.5, Math.min(view.whole * 400, view.scale * factor));
  view.left += x / view.scale - x / next;
  view.top += y / view.scale - y / next;
  view.scale = next;
  redraw();
}

function goTo(row) {
  const x = toX(xs[row]), y = toY(ys[row]), margin = 30;
  if (x < margin || y < margin || x > view.width - margin || y > view.height - margin) {
    view.left = xs[row] - view.width / 2 / view.scale;
    view.top = ys[row] - view.height / 2 / view.scale;
  }
}

function radius() {
  const plain = num > 30000 ? 1.6 : num > 8000 ? 2.2 : num > 2000 ? 3 : num > 300 ? 4 : 5.5;
  const room = Math.max(0.7, Math.min(1.1, Math.min(view.width, view.height) / 650));
  return Math.min(9, plain * room * Math.max(0.8, (view.scale / view.whole) ** 0.35));
}

function draw() {
  if (!dots.image) return;
  const begun = performance.now();
  const key = [view.scale, view.left, view.top, canvas.width, canvas.height, shown.version].join();
  if (key !== painted) canvas.dataset.drawn = paint();  // a ring around another film needs no dot anew
  painted = key;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.putImageData(dots.image, 0, 0);
  context.setTransform(view.dots, 0, 0, view.dots, 0, 0);
  drawMarks();
  canvas.dataset.milliseconds = (performance.now() - begun).toFixed(1);
}

function paint() {
  const size = radius() * view.dots, colours = shown.palette.map(parts), paper = parts(shown.paper), rim = radius() >= 3;
  const { slots } = shown.colour, { selected } = shown, gone = new Uint8Array(colours.length);
  for (const slot of shown.hidden) gone[slot] = 1;
  dots.clear(shown.paper);
  const scale = view.scale * view.dots, left = view.left * scale, top = view.top * scale;
  const edge = size + 2, right = canvas.width + edge, bottom = canvas.height + edge;
  let drawn = 0;
  for (let pass = selected ? 0 : 1; pass < 2; pass++) {
    const alpha = pass === 0 ? 0.15 : num > 3000 ? 0.8 : 0.92;
    const discs = discsOf(size, alpha), rims = rim && discsOf(size + 0.8 * view.dots, alpha);
    for (let k = 0; k < num; k++) {
      const i = order[k], slot = slots[i];
      if (gone[slot] || (selected && selected[i] !== pass)) continue;
      const x = xs[i] * scale - left, y = ys[i] * scale - top;
      if (x < -edge || y < -edge || x > right || y > bottom) continue;
      if (rim) dots.stamp(x, y, rims, paper);
      dots.stamp(x, y, discs, colours[slot]);
      drawn++;
    }
  }
  return drawn;
}

function drawMarks() {
  const { chosen, near, hovered, drawn, ink, paper } = shown, size = radius();
  const ring = (row, extra, width) => {
    for (const [colour, more] of [[paper, 2.5], [ink, 0]]) {
      context.beginPath();
      context.arc(toX(xs[row]), toY(ys[row]), size + extra, 0, 7);
      context.strokeStyle = colour;
      context.lineWidth = width + more;
      context.stroke();
    }
  };
  if (chosen >= 0) {
    context.strokeStyle = ink;
    context.globalAlpha = 0.35;
    context.lineWidth = 1;
    for (const row of near) {
      context.beginPath();
      context.moveTo(toX(xs[chosen]), toY(ys[chosen]));
      context.lineTo(toX(xs[row]), toY(ys[row]));
      context.stroke();
    }
    context.globalAlpha = 1;
    for (const row of near) ring(row, 2, 1.2);
    ring(chosen, 5, 2.5);
  }
  if (hovered >= 0) ring(hovered, 3, 2);
  if (drawn.length > 1) {
    context.beginPath();
    drawn.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    context.globalAlpha = 0.12;
    context.fillStyle = ink;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = ink;
    context.lineWidth = 1.4;
    context.setLineDash([5, 4]);
    context.stroke();
    context.setLineDash([]);
  }
}

function nearest(x, y, reach) {
  let found = -1, best = reach * reach;
  for (let k = num - 1; k >= 0; k--) {
    const i = order[k], dx = toX(xs[i]) - x, dy = toY(ys[i]) - y, distance = dx * dx + dy * dy;
    if (distance < best && isVisible(i)) { best = distance; found = i; }
  }
  return found;
}

function within(corners) {
  const found = new Uint8Array(num);
  for (let i = 0; i < num; i++) {
    if (!isVisible(i)) continue;
    const x = toX(xs[i]), y = toY(ys[i]);
    for (let a = 0, b = corners.length - 1; a < corners.length; b = a++) {  // an odd number of edges to the right
      const [ax, ay] = corners[a], [bx, by] = corners[b];
      if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) found[i] ^= 1;
    }
  }
  return found;
}

// Pointers: one drags, draws or points; two zoom.
const down = new Map();
let gesture = null;
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  down.set(event.pointerId, place(event));
  const [x, y] = place(event);
  const kind = down.size > 1 ? "pinch" : event.shiftKey && tool === "move" ? "lasso" : tool;
  gesture = { kind, x, y, moved: gesture !== null && kind === "pinch", touch: event.pointerType === "touch" };
  shown.drawn = [];
});

canvas.addEventListener("pointermove", (event) => {
  const [x, y] = place(event);
  if (!down.has(event.pointerId)) {
    if (event.pointerType !== "touch") hover(nearest(x, y, Math.max(9, radius() + 4)), x, y);
    return;
  }
  const [oldX, oldY] = down.get(event.pointerId);
  if (gesture.kind === "pinch") pinch(event.pointerId, [x, y]);
  down.set(event.pointerId, [x, y]);
  if (Math.hypot(x - gesture.x, y - gesture.y) > (gesture.touch ? 8 : 4)) gesture.moved = true;
  if (!gesture.moved || gesture.kind === "pinch") return;
  hover(-1);
  if (gesture.kind === "move") {
    canvas.classList.add("drags");
    view.left -= (x - oldX) / view.scale;
    view.top -= (y - oldY) / view.scale;
  } else if (gesture.kind === "lasso") shown.drawn.push(...(shown.drawn.length ? [] : [[gesture.x, gesture.y]]), [x, y]);
  else shown.drawn = [[gesture.x, gesture.y], [x, gesture.y], [x, y], [gesture.x, y]];
  redraw();
});

function pinch(id, [x, y]) {
  const [oldX, oldY] = down.get(id), other = [...down.entries()].find(([key]) => key !== id);
  if (!other) return;
  const [otherX, otherY] = other[1];
  const before = Math.hypot(oldX - otherX, oldY - otherY), after = Math.hypot(x - otherX, y - otherY);
  gesture.moved = true;
  if (before > 0) zoom(after / before, otherX, otherY);
}

function release(event) {
  if (!down.delete(event.pointerId)) return;
  if (down.size) {  // the finger that stays after two have zoomed moves the map
    const [[x, y]] = down.values();
    gesture = { kind: "move", x, y, moved: true, touch: true };
    return;
  }
  canvas.classList.remove("drags");
  const ended = gesture, corners = shown.drawn;
  gesture = null;
  shown.drawn = [];
  if (event.type === "pointercancel") return redraw();
  if (!ended.moved) listeners.choose(nearest(ended.x, ended.y, ended.touch ? 18 : 10));
  else if (corners.length > 2) listeners.select(within(corners));
  redraw();
}

function hover(row, x, y) {
  canvas.classList.toggle("over", row >= 0);
  if (row !== shown.hovered) { shown.hovered = row; redraw(); }
  listeners.hover(row, x, y);
}

canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("pointerleave", () => { if (!down.size) hover(-1); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  hover(-1);
  const lines = event.deltaMode === 1 ? 18 : event.deltaMode === 2 ? 300 : 1;
  zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) * (event.ctrlKey ? 0.008 : 0.0018)), ...place(event));
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const step = 60 / view.scale;
  const actions = {
    "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), "0": fit,
    ArrowLeft: () => { view.left -= step; }, ArrowRight: () => { view.left += step; },
    ArrowUp: () => { view.top -= step; }, ArrowDown: () => { view.top += step; },
  };
  if (!actions[event.key] || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  actions[event.key]();
  redraw();
});

new ResizeObserver(() => {
  const first = !view.width, was = [view.width, view.height];
  view.width = stage.clientWidth;
  view.height = stage.clientHeight;
  view.dots = window.devicePixelRatio || 1;
  canvas.width = Math.round(view.width * view.dots);
  canvas.height = Math.round(view.height * view.dots);
  dots.resize(context, canvas.width, canvas.height);
  painted = "";
  if (first || view.scale === view.whole) return fit();
  view.left += (was[0] - view.width) / 2 / view.scale;
  view.top += (was[1] - view.height) / 2 / view.scale;
  redraw();
}).observe(stage);
