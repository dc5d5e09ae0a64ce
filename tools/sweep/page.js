"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (name) => document.getElementById(name);
const drawn = byId("overview").querySelector("svg").namespaceURI;
const cells = new Map(data.cells.map((cell) => [`${cell.row}-${cell.column}`, cell]));

// ---- building blocks ----

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function shape(tag, attributes = {}, text = "") {
  const made = document.createElementNS(drawn, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e6) return String(Number(value.toPrecision(4)));
  return value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
}

function percent(share) {
  if (share === null || share === undefined) return "–";
  return `${share === 0 || share >= 0.01 ? Math.round(100 * share) : Number((100 * share).toPrecision(1))} %`;
}

function nameOf(row, column) {
  const parts = [[data.rowName, data.rows[row]], [data.columnName, data.columns[column]]];
  return parts.map((part) => part.join(" ").trim()).filter(Boolean).join(", ") || data.title;
}

// ---- charts ----

const palette = (count, backwards) => (index) => {
  if (count > 8) return `hsl(${Math.round(270 - (230 * index) / (count - 1))} 70% 50%)`;
  return `var(--c${backwards ? 7 - index : index})`;
};
const dashes = ["", "8 3", "2 4", "10 3 2 3", "1 6"];
const seen = (value) => value !== null && value > 0 && value < Infinity;

// All losses are shown; terms as far down as they are of any weight.
function valueRange(curves) {
  let low = Infinity, high = 0, least = Infinity;
  for (const curve of curves)
    for (const point of curve)
      point.slice(1).forEach((value, place) => {
        if (!seen(value)) return;
        low = Math.min(low, value);
        high = Math.max(high, value);
        if (place === 0) least = Math.min(least, value);
      });
  if (!high) return null;
  if (least < Infinity) low = Math.max(low, least * 1e-6);
  return [Math.log10(low) - 0.08, Math.log10(high) + 0.08];
}

function decade(exponent) {
  if (exponent >= -2 && exponent <= 3) return String(Number((10 ** exponent).toPrecision(3)));
  return "10" + [...String(exponent)].map((sign) => (sign === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign])).join("");
}

function valueTicks([low, high]) {
  const ticks = [];
  const step = Math.max(1, Math.ceil((high - low) / 8));
  for (let exponent = Math.ceil(low); exponent <= high; exponent++)
    if (exponent % step === 0) ticks.push([exponent, decade(exponent)]);
  if (ticks.length > 1) return ticks;
  const between = [];
  for (let exponent = Math.floor(low); exponent <= high; exponent++)
    for (const digit of [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]) {
      const place = exponent + Math.log10(digit);
      if (place >= low && place <= high) between.push([place, number(digit * 10 ** exponent)]);
    }
  return between.length > 1 ? between : [[low + 0.08, number(10 ** (low + 0.08))]];
}

function countTicks(low, high) {
  let step = 1;
  while ((high - low) / step > 8) step *= [2, 2.5, 2][Math.round(Math.log10(step * 10) * 3) % 3];
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) ticks.push(value);
  return ticks;
}

// Draws lines of {name, color, dash, wide, points: [[count, value], ...]} and reads them off below the pointer.
function chart(figure, {lines, range, counts, xName, yName, label, read, pick}) {
  const svg = figure.querySelector("svg");
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const [left, right, top, bottom] = [64, width - 12, 10, height - 44];
  svg.replaceChildren();
  svg.classList.remove("dim");
  svg.setAttribute("aria-label", label);
  svg.onpointermove = svg.onpointerleave = svg.onclick = null;
  const [first, last] = counts;
  const x = (count) => left + ((count - first) / Math.max(last - first, 1)) * (right - left);
  const [low, high] = range ?? [0, 1];
  const y = (value) => bottom - ((Math.log10(value) - low) / (high - low)) * (bottom - top);
  const clip = `${svg.id}-clip`;
  const clipped = shape("clipPath", {id: clip});
  clipped.append(shape("rect", {x: left, y: top, width: right - left, height: bottom - top}));
  svg.append(clipped);
  for (const [place, text] of range ? valueTicks(range) : []) {
    const level = y(10 ** place);
    svg.append(shape("line", {class: "grid", x1: left, x2: right, y1: level, y2: level}));
    svg.append(shape("text", {x: left - 6, y: level + 4, "text-anchor": "end"}, text));
  }
  for (const count of countTicks(first, last)) {
    svg.append(shape("line", {class: "grid", x1: x(count), x2: x(count), y1: top, y2: bottom}));
    svg.append(shape("text", {x: x(count), y: bottom + 17, "text-anchor": "middle"}, String(count)));
  }
  svg.append(shape("rect", {class: "frame", x: left, y: top, width: right - left, height: bottom - top}));
  const middle = (top + bottom) / 2;
  svg.append(shape("text", {x: (left + right) / 2, y: height - 6, "text-anchor": "middle"}, xName));
  svg.append(
    shape("text", {x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})`}, yName));
  if (!range) svg.append(shape("text", {x: (left + right) / 2, y: middle, "text-anchor": "middle"}, "no loss above 0"));
  const group = shape("g", {"clip-path": `url(#${clip})`});
  svg.append(group);
  const paths = lines.map((line) => {
    let path = "", pen = false;
    line.points.forEach(([count, value]) => {
      if (!seen(value)) { pen = false; return; }
      // A point alone makes a dot: a line of no length with round ends.
      const place = `${x(count).toFixed(1)} ${y(value).toFixed(1)}`;
      path += pen ? `L${place}` : `M${place}l0 0`;
      pen = true;
    });
    const kind = line.wide ? "line wide" : "line";
    const made = shape("path", {class: kind, d: path, "stroke-dasharray": line.dash ?? ""});
    made.style.stroke = line.color;
    group.append(made);
    return made;
  });
  group.append(...paths.filter((_, index) => lines[index].wide));
  const cross = shape("line", {class: "cross", y1: top, y2: bottom, visibility: "hidden"});
  svg.append(cross);

  const reading = figure.querySelector(".reading");
  const rest = pick ? "Point at a line to read it, click to open its picture." : "Point at the lines to read them.";
  reading.textContent = rest;
  const leave = () => {
    cross.setAttribute("visibility", "hidden");
    reading.textContent = rest;
    svg.classList.remove("dim", "pick");
    paths.forEach((path) => path.classList.remove("chosen"));
  };
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const across = ((event.clientX - box.left) / box.width) * width;
    const down = ((event.clientY - box.top) / box.height) * height;
    const count = first + ((across - left) / (right - left)) * Math.max(last - first, 1);
    const found = lines.map((line) => at(line.points, count));
    let best = -1, distance = pick ? 60 : Infinity;
    found.forEach((point, index) => {
      if (!point || !seen(point[1])) return;
      const away = Math.hypot(x(point[0]) - across, y(point[1]) - down);
      if (away < distance) [best, distance] = [index, away];
    });
    return [found, best];
  };
  svg.onpointermove = (event) => {
    const [found, best] = nearest(event);
    if (best < 0) { leave(); return; }
    cross.setAttribute("visibility", "visible");
    cross.setAttribute("x1", x(found[best][0]));
    cross.setAttribute("x2", x(found[best][0]));
    reading.textContent = read(found, best);
    if (!pick) return;
    svg.classList.add("dim", "pick");
    paths.forEach((path, index) => path.classList.toggle("chosen", index === best));
  };
  svg.onpointerleave = leave;
  if (pick) svg.onclick = (event) => {
    const [, best] = nearest(event);
    if (best >= 0) pick(best);
  };
}

// The point whose count is next to the one given.
function at(points, count) {
  let low = 0, high = points.length - 1;
  if (high < 0) return null;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < count) low = middle; else high = middle;
  }
  return count - points[low][0] < points[high][0] - count ? points[low] : points[high];
}

function legend(list, entries) {
  list.replaceChildren(...entries.map(({name, color, dash, wide}) => {
    const sample = shape("svg", {viewBox: "0 0 32 12", "aria-hidden": "true"});
    const line = shape("path", {class: wide ? "line wide" : "line", d: "M1 6H31", "stroke-dasharray": dash ?? ""});
    line.style.stroke = color;
    sample.append(line);
    return element("li", {}, sample, name);
  }));
}

const countOf = (cell, index) => (cell.iterations ? cell.iterations[index] : index + 1);
const curveOf = (cell) => (cell && !cell.failed && cell.facts.curve) || [];

// ---- all losses together ----

const withCurves = data.cells.filter((cell) => curveOf(cell).length);

function overview() {
  const figure = byId("overview");
  const byRow = byId("color-by") ? byId("color-by").value === "row" : data.rows.length > 1;
  const evaluations = byId("over").value === "evaluations";
  const [major, minor] = byRow ? ["row", "column"] : ["column", "row"];
  const labels = {row: data.rows, column: data.columns};
  const color = palette(labels[major].length);
  const dashed = labels[minor].length > 1 && labels[minor].length <= dashes.length;
  const lines = withCurves.map((cell) => ({
    color: color(cell[major]),
    dash: dashed ? dashes[cell[minor]] : "",
    points: curveOf(cell).map((point, index) => [evaluations ? point[0] : countOf(cell, index), point[1]]),
  }));
  const unit = evaluations ? "evaluation" : "iteration";
  chart(figure, {
    lines,
    range: valueRange(withCurves.map((cell) => curveOf(cell).map((point) => point.slice(0, 2)))),
    counts: extent(lines),
    xName: unit,
    yName: "loss",
    label: `Loss of ${withCurves.length} cells over the ${unit}s, log scale; the last ones stand below the pictures`,
    read: (found, best) => {
      const cell = withCurves[best];
      return `${nameOf(cell.row, cell.column)}: ${unit} ${found[best][0]}, loss ${number(found[best][1])}`;
    },
    pick: (index) => open(withCurves[index].row, withCurves[index].column),
  });
  const names = {row: data.rowName, column: data.columnName};
  const thinned = (entries, most) => entries.filter((_, index) => index % Math.ceil(entries.length / most) === 0);
  const entries = labels[major].map((text, index) => (
    {name: `${names[major]} ${text}`.trim(), color: color(index), wide: true}));
  const rest = dashed ? labels[minor].map((text, index) => (
    {name: `${names[minor]} ${text}`.trim(), color: "var(--ink)", dash: dashes[index]})) : [];
  legend(figure.querySelector(".legend"), [...thinned(entries, 24), ...rest].filter((entry) => entry.name));
}

function extent(lines) {
  let first = Infinity, last = 1;
  for (const {points} of lines) {
    if (!points.length) continue;
    first = Math.min(first, points[0][0]);
    last = Math.max(last, points[points.length - 1][0]);
  }
  return [Math.min(first, last), last];
}

// ---- one picture ----

const viewer = byId("viewer"), stage = byId("stage"), image = stage.querySelector("img");
const view = {row: 0, column: 0, zoom: 1, x: 0.5, y: 0.5};

const tileOf = (row, column) => byId(`cell-${row}-${column}`).querySelector("img");

function open(row, column) {
  Object.assign(view, {zoom: 1, x: 0.5, y: 0.5});
  if (!viewer.open) viewer.showModal();
  show(row, column);
  stage.focus();
}

function show(row, column) {
  if (row < 0 || column < 0 || row >= data.rows.length || column >= data.columns.length) return;
  Object.assign(view, {row, column});
  const cell = cells.get(`${row}-${column}`), tile = tileOf(row, column);
  byId("which").textContent = nameOf(row, column);
  const note = stage.querySelector("p");
  image.hidden = !tile;
  note.hidden = Boolean(tile);
  note.className = cell ? "failed" : "soft";
  note.textContent = !cell ? "not made yet" : cell.failed !== null ? `failed: ${cell.failed}` : "no picture";
  if (tile) {
    image.src = tile.src;
    image.alt = tile.alt;
  } else image.removeAttribute("src");
  byId("left").disabled = column === 0;
  byId("right").disabled = column === data.columns.length - 1;
  byId("up").disabled = row === 0;
  byId("down").disabled = row === data.rows.length - 1;
  facts(cell);
  curves(cell);
  place();
}

// view.zoom is relative to the whole picture fitting in, view.x and .y are the part of it that lies in the middle: so
// the same detail stays in place from one cell to the next, whatever their sizes.
function sizes() {
  const width = image.naturalWidth || 1, height = image.naturalHeight || 1;
  const fitting = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  return {width, height, fitting, scale: fitting * view.zoom};
}

function place() {
  if (image.hidden || !image.naturalWidth) { byId("percent").textContent = ""; return; }
  const {width, height, scale} = sizes();
  const keep = (part, length, room) => {
    const half = room / (2 * length * scale);
    return half >= 0.5 ? 0.5 : Math.min(Math.max(part, half), 1 - half);
  };
  view.x = keep(view.x, width, stage.clientWidth);
  view.y = keep(view.y, height, stage.clientHeight);
  Object.assign(image.style, {
    width: `${width * scale}px`,
    height: `${height * scale}px`,
    left: `${stage.clientWidth / 2 - view.x * width * scale}px`,
    top: `${stage.clientHeight / 2 - view.y * height * scale}px`,
    imageRendering: scale * devicePixelRatio >= 8 ? "pixelated" : "auto",
  });
  byId("percent").textContent = `${Math.round(100 * scale * devicePixelRatio)} %`;
}

function zoom(factor, event) {
  if (image.hidden || !image.naturalWidth) return;
  const box = stage.getBoundingClientRect();
  const across = event ? event.clientX - box.left - box.width / 2 : 0;
  const down = event ? event.clientY - box.top - box.height / 2 : 0;
  const before = sizes();
  const most = Math.max(8, 32 / before.fitting);
  view.zoom = Math.min(Math.max(view.zoom * factor, 1), most);
  const after = sizes();
  view.x += across / before.width * (1 / before.scale - 1 / after.scale);
  view.y += down / before.height * (1 / before.scale - 1 / after.scale);
  place();
}

function pan(across, down) {
  const {width, height, scale} = sizes();
  view.x -= across / (width * scale);
  view.y -= down / (height * scale);
  place();
}

const whole = () => { Object.assign(view, {zoom: 1, x: 0.5, y: 0.5}); place(); };
const actual = () => zoom(1 / (sizes().scale * devicePixelRatio));

const fingers = new Map();
stage.onpointerdown = (event) => {
  stage.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, event);
};
stage.onpointermove = (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
  if (other) {
    const distance = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY) || 1;
    const [clientX, clientY] = [(event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2];
    zoom(distance(event) / distance(before), {clientX, clientY});
  } else pan(event.clientX - before.clientX, event.clientY - before.clientY);
  fingers.set(event.pointerId, event);
};
stage.onpointerup = stage.onpointercancel = (event) => fingers.delete(event.pointerId);
stage.ondblclick = (event) => (view.zoom > 1 ? whole() : zoom(4, event));
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), event);
}, {passive: false});
image.onload = place;
window.addEventListener("resize", () => viewer.open && place());

const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
viewer.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = steps[event.key];
  if (step && event.shiftKey) pan(-60 * step[1], -60 * step[0]);
  else if (step) show(view.row + step[0], view.column + step[1]);
  else if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "0") whole();
  else if (event.key === "1") actual();
  else return;
  event.preventDefault();
};
viewer.onclose = () => {
  const button = tileOf(view.row, view.column)?.parentElement;
  button?.focus();
  button?.scrollIntoView({block: "nearest", inline: "nearest"});
};
const moves = {left: [0, -1], right: [0, 1], up: [-1, 0], down: [1, 0]};
for (const [name, [down, across]] of Object.entries(moves))
  byId(name).onclick = () => show(view.row + down, view.column + across);
byId("in").onclick = () => zoom(1.5);
byId("out").onclick = () => zoom(1 / 1.5);
byId("whole").onclick = whole;
byId("actual").onclick = actual;
byId("close").onclick = () => viewer.close();

// ---- its facts and its losses ----

function words(pairs) {
  const rows = pairs.map(([name, text]) =>
    element("tr", {}, element("th", {scope: "row"}, name), element("td", {}, text)));
  return element("table", {class: "facts words"}, element("tbody", {}, ...rows));
}

function facts(cell) {
  const place = byId("facts");
  place.replaceChildren();
  byId("more").replaceChildren();
  if (!cell) return;
  const known = cell.facts, result = [];
  if (cell.differing.length) place.append(element("h3", {}, "What differs from cell to cell"), words(cell.differing));
  if (cell.failed === null) {
    result.push(["loss", `${number(known.initial_loss)} → ${number(known.loss)}`]);
    result.push(["iterations, evaluations", `${known.iterations ?? "–"}, ${known.evaluations ?? "–"}`]);
    result.push(["end", known.stop_reason ?? known.stop ?? "–"]);
  } else result.push(["failed", cell.failed]);
  result.push(["time", known.seconds === null || known.seconds === undefined ? "–" : `${number(known.seconds)} s`]);
  if (cell.file) result.push(["file", cell.file]);
  place.append(element("h3", {}, "Result"), words(result));
  const more = byId("more");
  if (known.start) more.append(element("h3", {}, "Terms and their shares"), terms(known.start, known.end));
  if (data.common.length) more.append(
    element("details", {}, element("summary", {}, "Settings that all cells share"), words(data.common)));
}

function terms(start, end) {
  const head = element("thead", {},
    element("tr", {}, element("th"), element("th", {colspan: 3, scope: "colgroup"}, "start"),
      element("th", {colspan: 3, scope: "colgroup"}, "end")),
    element("tr", {}, element("th"), ...[1, 2].flatMap(() =>
      ["value", "of loss", "of grad."].map((text) => element("th", {scope: "col"}, text)))));
  const rows = [];
  const row = (name, kind, values) => rows.push(element("tr", kind ? {class: kind} : {},
    element("th", {scope: "row"}, name), ...values.map((value) => element("td", {}, value))));
  const sum = (layers) => Object.values(layers ?? {}).reduce((total, value) => total + value, 0);
  for (const kind of ["content", "style"]) {
    const layers = Object.keys(start.terms[kind] ?? {});
    const values = (pick) => [start, end].flatMap((when) => !when ? ["–", "–", "–"] : [number(pick(when.terms[kind])),
      percent(pick(when.loss_shares[kind])), percent(pick(when.gradient_shares[kind]))]);
    if (layers.length > 1) row(kind, "strong", values(sum));
    for (const layer of layers) row(`${kind} ${layer}`, "", values((of) => of?.[layer]));
  }
  return element("table", {class: "facts shares"}, head, element("tbody", {}, ...rows));
}

const shared = {range: valueRange(withCurves.map(curveOf)), counts: [1, 1]};
for (const cell of withCurves) shared.counts[1] = Math.max(shared.counts[1], countOf(cell, curveOf(cell).length - 1));

function curves(cell) {
  const figure = byId("curves"), points = curveOf(cell);
  figure.hidden = !points.length;
  if (!points.length) return;
  const style = cell.facts.terms.filter((name) => !name.startsWith("content "));
  const content = cell.facts.terms.filter((name) => name.startsWith("content "));
  const own = [palette(style.length), palette(content.length, true)];
  const color = (name) => content.includes(name) ? own[1](content.indexOf(name)) : own[0](style.indexOf(name));
  const lines = ["loss", ...cell.facts.terms].map((name, place) => ({
    name,
    wide: place === 0,
    color: place === 0 ? "var(--ink)" : color(name),
    dash: content.includes(name) ? "6 4" : "",
    points: points.map((point, index) => [countOf(cell, index), point[place + 1]]),
  }));
  const same = byId("same").checked;
  chart(figure, {
    lines,
    range: same ? shared.range : valueRange([points]),
    counts: same ? shared.counts : extent(lines),
    xName: "iteration",
    yName: "loss and its weighted terms",
    label: `Loss and terms of ${nameOf(cell.row, cell.column)} over ${cell.facts.iterations} iterations, `
      + `log scale: from ${number(points[0][1])} to ${number(points[points.length - 1][1])}`,
    read: (found, best) => `iteration ${found[best][0]}: `
      + found.map((point, index) => `${lines[index].name} ${number(point && point[1])}`).join(", "),
  });
  legend(figure.querySelector(".legend"), lines);
}

byId("same").onchange = () => curves(cells.get(`${view.row}-${view.column}`));

// ---- the page ----

byId("grid").onclick = (event) => {
  const cell = event.target.closest(".picture")?.closest("td");
  if (cell) open(...cell.id.split("-").slice(1).map(Number));
};
byId("tile").oninput = (event) => byId("grid").style.setProperty("--tile", `${event.target.value}px`);
byId("over").onchange = overview;
if (byId("color-by")) byId("color-by").onchange = overview;
overview();
