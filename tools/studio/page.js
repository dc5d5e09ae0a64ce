"use strict";

const byId = (name) => document.getElementById(name);

// ---- what the page knows ----

const page = {
  about: null, // what can be chosen
  chosen: { content: "", style: [], blend: [], mask: [], keep: null }, // the inputs, by their names in the folder
  layers: [], // the style layers that have a slider
  further: {}, // options of a picture that have no control here
  recommended: null, // the content weight that suits the network and the size
  wanted: 0, // a content weight that its slider does not show yet, for the recommended one is not known
  run: null, // the picture that is being made
  form: "", // its form, as last seen
  points: [],
  waiting: [],
  pictures: [],
  failures: new Set(),
  view: { kind: "run" }, // or a picture, with its number
  sending: 0, // changes on their way
  loading: false,
  untimed: false, // whether the network has not been timed yet
};

// ---- building blocks ----

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function shape(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e6) return String(Number(value.toPrecision(3)));
  return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
}

function percent(share) {
  return `${share === 0 || share >= 0.01 ? Math.round(100 * share) : Number((100 * share).toPrecision(1))} %`;
}

function duration(seconds) {
  if (seconds < 1) return "a moment";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function fail(reason) {
  byId("error").hidden = !reason;
  byId("error").firstElementChild.textContent = reason || "";
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the studio does not answer: is it still running in its terminal?");
  }
  const told = await answer.json().catch(() => ({ error: "the studio gave no answer" }));
  if (!answer.ok) throw new Error(told.error);
  return told;
}

const send = (path, value = {}) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

// Whatever fails is told at the top of the page.
function doing(work) {
  return async (...given) => {
    try {
      return await work(...given);
    } catch (error) {
      fail(error.message);
      return undefined;
    }
  };
}

const fileName = (path) => path.split(/[\\/]/).at(-1);
const inputAddress = (name) => `inputs/${encodeURIComponent(name)}`;

// ---- photographs and paintings ----

function bringIn(file, kind) {
  if (file.size > page.about.upload)
    throw new Error(`${file.name} has ${Math.round(file.size / 1e6)} MB, pictures have at most ${page.about.upload / 1e6} MB`);
  const headers = { "X-Name": encodeURIComponent(file.name), "Content-Type": "application/octet-stream" };
  return ask(`inputs?as=${kind}`, { method: "POST", headers, body: file });
}

function dropZone(name, take) {
  const zone = byId(name), input = zone.querySelector("input");
  const taken = doing(async (files) => {
    if (!files.length) return;
    zone.classList.add("busy");
    try {
      fail("");
      for (const file of files) await take(file);
    } finally {
      zone.classList.remove("busy");
      input.value = "";
      chosenChanged();
    }
  });
  input.addEventListener("change", () => taken([...input.files]));
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    taken([...event.dataTransfer.files]);
  });
}

function showChosen() {
  const { content, style, mask, keep, blend } = page.chosen;
  const image = byId("drop-content").querySelector("img");
  image.hidden = !content;
  if (content) {
    image.src = inputAddress(content);
    image.alt = `The photograph ${content}`;
  }
  byId("drop-style").classList.toggle("some", style.length > 0);
  byId("drop-style").querySelector("span").textContent = style.length ? "Add another" : "Drop paintings here, or choose them";
  byId("paintings").replaceChildren(
    ...style.map((name, place) => {
      const item = element("li", {}, element("img", { src: inputAddress(name), alt: `The painting ${name}` }));
      if (style.length > 1 && !mask.length) {
        const weight = element("input", { type: "number", min: 0, step: "any", value: blend[place] ?? 1, "aria-label": `Weight of painting ${place + 1}` });
        weight.addEventListener("change", () => {
          page.chosen.blend = style.map((_, other) => (other === place ? Number(weight.value) : page.chosen.blend[other] ?? 1));
          liveChanged();
        });
        item.append(weight);
      }
      const away = element("button", { type: "button", "aria-label": `Remove painting ${place + 1}` }, "×");
      away.addEventListener("click", () => {
        page.chosen.style.splice(place, 1);
        page.chosen.blend = [];
        page.chosen.mask = [];
        chosenChanged();
      });
      item.append(away);
      return item;
    }),
  );
  byId("open-masks").disabled = !content;
  const drawn = [keep ? "kept where painted" : "", mask.length ? `${style.length} paintings in their places` : ""];
  byId("mask-state").textContent = drawn.filter(Boolean).join(", ");
}

function chosenChanged() {
  showChosen();
  remember();
  estimate();
  if (page.view.kind === "run" && !page.run) showStage();
}

// ---- the form ----

function formNow() {
  const { content, style, mask, keep, blend } = page.chosen;
  const options = { ...page.further, model: byId("model").value, size: byId("size").value, iterations: byId("iterations").value };
  if (byId("init").value) options.init = byId("init").value;
  if (byId("colors").selectedIndex > 0) options.colors = byId("colors").value;
  const turned = Number(byId("content").value);
  if (page.wanted) options.content_weight = String(page.wanted);
  else if (turned && page.recommended) options.content_weight = String(Number((page.recommended * 10 ** turned).toPrecision(4)));
  const strokes = Number(byId("style-size").value);
  if (strokes) options.style_size = String(Math.max(1, Math.round(Number(options.size) * 2 ** strokes)));
  const smooth = smoothness();
  if (smooth) options.variation_weight = String(smooth);
  const weights = page.layers.map(({ name, slider }) => [name, Number(slider.value) / page.layers.length]);
  if (page.layers.some(({ slider }) => Number(slider.value) !== 1) || page.layers.map(({ name }) => name).join() !== page.about.layers.join())
    options.style_layers = weights.map(([name, weight]) => `${name}:${Number(weight.toPrecision(4))}`).join();
  const layers = byId("content-layers").value.trim();
  if (layers) options.content_layers = layers;
  if (style.length > 1 && !mask.length && blend.some((weight) => weight !== 1)) options.blend = style.map((_, place) => blend[place] ?? 1).join();
  return { content, style: [...style], mask: [...mask], keep, options };
}

// Of the total variation: each step is a factor of about 1.8.
const smoothness = () => {
  const step = Number(byId("variation").value);
  return step ? Number((1e-2 * 10 ** (step / 4)).toPrecision(2)) : 0;
};

function fill(form) {
  const options = { ...form.options };
  const take = (name) => {
    const value = options[name];
    delete options[name];
    return value;
  };
  page.chosen = { content: form.content, style: [...form.style], mask: [...form.mask], keep: form.keep, blend: (take("blend") || "").split(",").filter(Boolean).map(Number) };
  choose(byId("model"), take("model") || page.about.default);
  byId("size").value = take("size") || page.about.size;
  byId("iterations").value = take("iterations") || page.about.iterations;
  choose(byId("init"), take("init") || "");
  choose(byId("colors"), take("colors") || page.about.colors[0]);
  const variation = Number(take("variation_weight") || 0);
  byId("variation").value = variation ? Math.max(1, Math.round(4 * Math.log10(variation / 1e-2))) : 0;
  const strokes = take("style_size");
  if (strokes === "picture") options.style_size = strokes;
  byId("style-size").value = Number(strokes) ? Math.log2(Number(strokes) / Number(byId("size").value)) : 0;
  byId("content-layers").value = take("content_layers") || "";
  const layers = take("style_layers");
  const listed = layers ? layers.split(",").map((part) => part.split(/:(?=[^:]*$)/)) : page.about.layers.map((name) => [name]);
  layerSliders(listed.map(([name, weight]) => [name, weight === undefined ? 1 : Number(weight) * listed.length]));
  page.wanted = Number(take("content_weight") || 0);
  byId("content").value = 0;
  page.further = options;
  showChosen();
  remember();
  estimate();
}

function choose(select, value) {
  if (![...select.options].some((option) => option.value === value)) select.append(element("option", { value }, value));
  select.value = value;
}

function layerSliders(layers) {
  page.layers = layers.map(([name, value]) => ({
    name,
    slider: element("input", { type: "range", id: `layer-${name}`, min: 0, max: 4, step: 0.1, value }),
  }));
  byId("layers").replaceChildren(
    ...page.layers.flatMap(({ name, slider }) => {
      const shown = element("output", { for: slider.id });
      const show = () => (shown.textContent = `× ${Number(slider.value)}`);
      slider.addEventListener("input", show);
      slider.addEventListener("change", liveChanged);
      show();
      return [element("label", { for: slider.id }, name), slider, shown];
    }),
  );
}

function showValues() {
  const turned = Number(byId("content").value), factor = number(10 ** turned);
  byId("content-value").textContent = turned ? `× ${factor}` : "usual";
  const strokes = Number(byId("style-size").value);
  byId("style-size-value").textContent = strokes ? `${Math.round(Number(byId("size").value) * 2 ** strokes)} px` : "picture's";
  byId("variation-value").textContent = smoothness() ? number(smoothness()) : "off";
}

// Whether what is chosen here is what the picture in hand is made of: if not, it is to be another picture.
function isOfRun() {
  const mine = formNow(), of = page.run.form;
  const made = (form) => [form.content, form.style, Number(form.options.size || page.about.size), form.options.model || page.about.default];
  return JSON.stringify(made(mine)) === JSON.stringify(made(of));
}

// Changes are sent one after the other: of two on their way together the former could come last, and undo the latter.
let lastChange = Promise.resolve();

async function sendChange(path, form, before) {
  page.sending++;
  try {
    await before.catch(() => {});
    page.form = JSON.stringify((await send(path, form)).form);
  } finally {
    page.sending--;
  }
}

// What is turned while a picture is made is sent to it; else it waits for the start.
const liveChanged = doing(async () => {
  showValues();
  remember();
  estimate();
  if (!page.run || page.view.kind !== "run" || !isOfRun()) return;
  const mine = formNow(), options = { ...page.run.form.options };
  for (const name of page.about.live) {
    delete options[name];
    if (mine.options[name] !== undefined) options[name] = mine.options[name];
  }
  const form = { ...page.run.form, mask: mine.mask, keep: mine.keep, options };
  lastChange = sendChange(`run/${page.run.number}/change`, form, lastChange);
  await lastChange;
});

function remember() {
  try {
    localStorage.setItem("form", JSON.stringify(formNow()));
  } catch {
    // a browser that keeps nothing: the page forgets the form with a reload
  }
}

function remembered() {
  try {
    return JSON.parse(localStorage.getItem("form"));
  } catch {
    return null;
  }
}

// ---- memory and time, before the start ----

let asked = 0;
let estimating = null;

function estimate() {
  showValues();
  clearTimeout(estimating);
  if (!page.chosen.content || !page.chosen.style.length) {
    byId("estimate").textContent = "";
    return;
  }
  estimating = setTimeout(estimateNow, page.wanted ? 0 : 150);
}

async function estimateNow() {
  const mine = ++asked, wanted = page.wanted;
  try {
    const told = await send("estimate", formNow());
    if (mine !== asked) return;
    page.recommended = told.recommended;
    page.untimed = told.seconds === null;
    if (wanted && wanted === page.wanted) {
      byId("content").value = Math.log10(wanted / told.recommended);
      page.wanted = 0;
      showValues();
      remember();
    }
    const time = told.seconds === null ? "time not known yet" : `about ${duration(told.seconds)}`;
    const sizes = told.levels > 1 ? `, in ${told.levels} sizes` : "";
    byId("estimate").textContent = `${told.width} × ${told.height} pixels${sizes}: ${time}, ${told.memory} of memory`;
  } catch (error) {
    if (mine === asked) byId("estimate").textContent = error.message;
  }
}

// ---- the stage ----

function pictureInView() {
  return page.view.kind === "picture" ? page.pictures.find((made) => made.number === page.view.number) : undefined;
}

function show(image, address, alt) {
  if (image.dataset.address === address) return;
  image.dataset.address = address;
  image.alt = alt;
  image.src = address;
  image.hidden = false;
}

// The next picture is fetched when the last one has come: a slow screen sees fewer of them.
async function showLive() {
  const run = page.run;
  if (page.loading || !run || !run.shown || page.view.kind !== "run") return;
  const address = `run/${run.number}/now.jpg?v=${run.shown}`;
  if (byId("under").dataset.address === address) return;
  page.loading = true;
  const next = new Image();
  next.src = address;
  try {
    await next.decode();
    if (page.view.kind === "run") show(byId("under"), address, "The picture as it stands");
    wiped();
  } catch {
    // the run has ended meanwhile
  }
  page.loading = false;
  if (page.run && page.run.shown !== run.shown) showLive();
}

function showStage() {
  const made = pictureInView(), run = page.view.kind === "run" ? page.run : null;
  document.body.classList.toggle("working", Boolean(made || run));
  const form = made ? made.form : run ? run.form : null;
  const content = form ? form.content : page.chosen.content;
  if (made) show(byId("under"), `pictures/${made.number}.png`, `Picture ${made.number}`);
  else if (run && run.shown) showLive();
  else if (content) show(byId("under"), inputAddress(content), "The photograph");
  else byId("under").hidden = true;
  byId("empty").hidden = Boolean(content);

  const beside = byId("beside");
  const earlier = page.pictures.filter((other) => !made || other.number !== made.number).slice(0, 12);
  const wanted = [["photograph", "the photograph"], ["before", "before the last change"], ...earlier.map((other) => [`picture-${other.number}`, `picture ${other.number}`])]
    .filter(([value]) => value !== "before" || (run && run.before));
  const key = JSON.stringify(wanted);
  if (beside.dataset.key !== key) {
    const kept = beside.value;
    beside.replaceChildren(...wanted.map(([value, text]) => element("option", { value }, text)));
    if (wanted.some(([value]) => value === kept)) beside.value = kept;
    beside.dataset.key = key;
  }
  const there = Boolean(made || (run && run.shown));
  if (there && content) {
    const value = beside.value;
    if (value === "before") show(byId("over"), `run/${run.number}/before.jpg?v=${run.before}`, "Before the last change");
    else if (value.startsWith("picture-")) show(byId("over"), `pictures/${value.slice(8)}.png`, `Picture ${value.slice(8)}`);
    else show(byId("over"), inputAddress(content), "The photograph");
  }
  for (const name of ["over", "divider", "wipe"]) byId(name).hidden = !there || !content;
  wiped();

  byId("pause").hidden = byId("stop").hidden = !run;
  byId("larger-label").hidden = !(made || (run && run.shown));
  byId("curves").hidden = !run || !page.points.length;
  byId("progress").hidden = !run;
  if (run) {
    byId("pause").textContent = run.status === "paused" ? "Go on" : "Pause";
    byId("progress").value = run.iterations ? run.iteration / run.iterations : 0;
  }
  byId("status").textContent = made ? "" : run ? statusOf(run) : "";
  byId("note").textContent = run ? run.note : "";
  showDetails(made, run);
}

function statusOf(run) {
  if (run.status === "reading") return "Reading the pictures …";
  const parts = [];
  if (run.status === "paused") parts.push("Paused");
  parts.push(run.stage === "draft" ? "Draft by the small network" : run.levels > 1 ? `Size ${run.level} of ${run.levels}` : "The picture");
  parts.push(`${run.width} × ${run.height}`, `iteration ${run.iteration} of ${run.iterations}`);
  if (run.evaluation_seconds) parts.push(`${number(run.evaluation_seconds)} s an evaluation`);
  if (run.left_seconds) parts.push(`about ${duration(run.left_seconds)} left`);
  return parts.join(", ");
}

// The wipe goes over the picture itself, not over the bands beside it.
function wiped() {
  const easel = byId("easel"), image = byId("under");
  const scale = Math.min(easel.clientWidth / (image.naturalWidth || 1), easel.clientHeight / (image.naturalHeight || 1));
  const width = image.naturalWidth * scale, left = (easel.clientWidth - width) / 2;
  byId("wipe").style.left = `${left}px`;
  byId("wipe").style.width = `${width}px`;
  easel.style.setProperty("--cut", `${left + (width * Number(byId("wipe").value)) / 100}px`);
}

const titles = {
  content_weight: "content weight", style_size: "style size", variation_weight: "smoothness", style_layers: "style layers",
  content_layers: "content layers", learning_rate: "learning rate", init: "begun with", style_weight: "style weight", size: "long side",
};

function showDetails(made, run) {
  const shown = made || run;
  byId("details").hidden = !shown;
  if (!shown) return;
  const key = JSON.stringify([made ? made.number : 0, shown.form, shown.steered]);
  if (byId("details").dataset.key === key) return;
  byId("details").dataset.key = key;
  byId("details-title").textContent = made ? `Picture ${made.number}` : "Its settings";
  byId("details-buttons").hidden = !made;
  const rows = Object.entries(shown.form.options).map(([name, value]) => [titles[name] || name.replaceAll("_", " "), value]);
  if (made) {
    byId("file").href = `pictures/${made.number}.png`;
    rows.unshift(["pixels", `${made.width} × ${made.height}`]);
    const { seconds, iterations, loss, stop_reason: reason } = made.facts;
    rows.push(["made in", duration(Number(seconds))], ["iterations in all", iterations], ["loss", number(loss)], ["ended", reason]);
    const smaller = made.facts.enlarged_from;
    if (Array.isArray(smaller)) rows.push(["enlarged from", smaller.join(" × ")]);
  }
  byId("settings").replaceChildren(...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
  byId("command").textContent = shown.command;
  byId("command-note").hidden = !shown.steered;
  byId("command-note").textContent = made && made.facts.stop === "stopped"
    ? "It was stopped before its end: this command goes on to it, with the settings as they were last."
    : "Settings were changed while it was made: this command has the last ones from the beginning.";
}

// ---- curves ----

function termNames(points) {
  const names = new Set();
  for (const point of points) for (const name of Object.keys(point.shares)) names.add(name);
  return [...names].sort((one, other) => rank(one) - rank(other) || one.localeCompare(other));
}

const rank = (name) => (name.startsWith("content") ? 0 : name.startsWith("style") ? 1 : 2);
const colorOf = (name, place) => (name.startsWith("variation") ? "t6" : name.startsWith("content") && place === 0 ? "t0" : `t${1 + ((place - 1 + 5) % 5)}`);

function showCurves() {
  // The draft's losses are another network's.
  const begun = page.run ? page.run.marks.find((mark) => mark.kind !== "draft" && mark.step < page.points.length) : undefined;
  const from = begun ? begun.step : 0, points = page.points.slice(from);
  if (!points.length || byId("curves").hidden) return;
  const width = 600, height = 200, last = Math.max(points.at(-1).step, from + 2);
  const x = (step) => (((step - from - 1) / (last - from - 1)) * width).toFixed(1);
  const losses = points.map((point) => point.loss).filter((loss) => loss > 0);
  const low = Math.log10(Math.min(...losses)), high = Math.log10(Math.max(...losses));
  const y = (loss) => (height - 12 - ((Math.log10(loss) - low) / (high - low || 1)) * (height - 24)).toFixed(1);
  const marks = (page.run ? page.run.marks : [])
    .filter((mark) => mark.step > from && mark.step < last)
    .map((mark) => shape("line", { class: `mark ${mark.kind}`, x1: x(mark.step + 0.5), x2: x(mark.step + 0.5), y1: 0, y2: height }));
  const path = points.filter((point) => point.loss > 0).map((point, place) => `${place ? "L" : "M"}${x(point.step)} ${y(point.loss)}`).join("");
  byId("loss-chart").replaceChildren(...marks, shape("path", { class: "line", d: path }));
  byId("loss").textContent = `${number(points[0].loss)} → ${number(points.at(-1).loss)}, logarithmic`;

  const names = termNames(points), below = points.map(() => 0), areas = [];
  names.forEach((name, place) => {
    const lower = points.map((point, index) => [x(point.step), below[index]]);
    points.forEach((point, index) => (below[index] += point.shares[name] || 0));
    const upper = points.map((point, index) => [x(point.step), below[index]]);
    const corners = [...upper, ...lower.reverse()].map(([across, share]) => `${across} ${(height * (1 - share)).toFixed(1)}`);
    areas.push(shape("path", { class: colorOf(name, place), d: `M${corners.join("L")}Z` }));
  });
  byId("share-chart").replaceChildren(...areas, ...marks.map((mark) => mark.cloneNode()));
  const shares = points.at(-1).shares;
  byId("legend").replaceChildren(
    ...names.map((name, place) => element("li", {}, element("i", { class: colorOf(name, place) }), `${name} ${percent(shares[name] || 0)}`)),
  );
}

// ---- the queue and the strip ----

function showQueue() {
  byId("start").textContent = page.run || page.waiting.length ? "Add to the queue" : "Make the picture";
  const key = JSON.stringify(page.waiting);
  if (byId("queue").dataset.key === key) return; // what is under the pointer stays there
  byId("queue").dataset.key = key;
  byId("queue").hidden = !page.waiting.length;
  byId("queue").querySelector("ol").replaceChildren(
    ...page.waiting.map((run) => {
      const away = element("button", { type: "button", "aria-label": `Remove picture with ${run.form.style[0]} from the queue` }, "×");
      away.addEventListener("click", doing(() => send(`queue/${run.number}/remove`)));
      const image = element("img", { src: inputAddress(run.form.style[0]), alt: "" });
      return element("li", {}, image, element("span", {}, `${run.form.options.size || page.about.size} px, ${fileName(run.form.options.model)}`), away);
    }),
  );
}

// The way back from a picture of the strip to the one that is being made.
function inHand() {
  const back = element("button", { type: "button", id: "in-hand" }, "The picture in hand");
  back.addEventListener("click", () => {
    page.view = { kind: "run" };
    showStrip();
    showStage();
    byId("stage").scrollIntoView();
  });
  return element("li", {}, back);
}

function showStrip() {
  byId("pictures").replaceChildren(
    ...(page.run && page.view.kind === "picture" ? [inHand()] : []),
    ...page.pictures.map((made) => {
      const open = element("button", { type: "button", class: "open", "aria-label": `Show picture ${made.number}` }, element("img", { src: `pictures/${made.number}.jpg`, alt: "", loading: "lazy" }));
      open.setAttribute("aria-current", page.view.kind === "picture" && page.view.number === made.number);
      open.addEventListener("click", () => {
        page.view = { kind: "picture", number: made.number };
        byId("wipe").value = 100;
        showStrip();
        showStage();
        byId("stage").scrollIntoView();
      });
      const again = element("button", { type: "button", class: "small", "aria-label": `Make picture ${made.number} again` }, "Again");
      again.addEventListener("click", makeAgain(made.number));
      const what = made.steered ? (made.facts.stop === "stopped" ? ", stopped" : ", steered") : "";
      return element("li", {}, open, element("p", {}, `${made.number}: ${made.width} × ${made.height}${what}`), again);
    }),
  );
}

const makeAgain = (number) =>
  doing(async () => {
    fail("");
    if (!page.run) page.view = { kind: "run" };
    await send(`pictures/${number}/again`);
    showStrip();
  });

// ---- what the studio tells ----

function told(event) {
  const news = JSON.parse(event.data);
  const before = page.run ? page.run.number : null;
  if (news.run) {
    const { points, first, ...run } = news.run;
    if (before !== run.number) page.points = [];
    page.points = [...page.points.slice(0, first), ...points];
    if (before !== run.number && page.view.kind === "run") byId("wipe").value = 100;
    page.run = run;
    const form = JSON.stringify(run.form);
    if (form !== page.form && !page.sending) {
      page.form = form; // changed in another tab, or the page has just been opened
      if (isOfRun() || (!page.chosen.content && !page.chosen.style.length)) fill(run.form);
    }
  } else {
    page.run = null;
    page.form = "";
  }
  page.waiting = news.waiting;
  if (news.pictures) {
    page.pictures = news.pictures;
  }
  const ended = before !== null && !page.run && page.view.kind === "run";
  if (ended && page.pictures.length && !news.failures.some((failure) => failure.number === before))
    page.view = { kind: "picture", number: page.pictures[0].number };
  if (news.pictures || before !== (page.run ? page.run.number : null)) showStrip();
  for (const failure of news.failures)
    if (!page.failures.has(failure.number)) {
      page.failures.add(failure.number);
      if (page.heard) fail(failure.reason);
    }
  page.heard = true;
  byId("live-note").textContent = page.run && page.view.kind === "run" && isOfRun() ? "heard by the picture at once" : "also while it is made";
  if (page.untimed && !page.run) estimate();
  showQueue();
  showStage();
  showCurves();
}

// A browser keeps few connections to one address: a tab that nobody sees gives its own back.
let events = null;

function listen() {
  if (events) events.close();
  events = null;
  if (document.hidden) return;
  events = new EventSource("events");
  events.onmessage = told;
  events.onerror = () => {
    byId("status").textContent = "The studio does not answer. If it has ended, start it again, and open the address that it prints.";
    if (events && events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

// ---- masks by brush ----

const tints = ["#ffd400", "#ff3b7f", "#23b5ff", "#5ddf3f", "#b06bff", "#ff8a1f"];
const board = { layers: [], place: 0, at: null };

async function openMasks() {
  const photograph = byId("board").querySelector("img");
  photograph.src = inputAddress(page.chosen.content);
  await photograph.decode();
  const [width, height] = [photograph.naturalWidth, photograph.naturalHeight];
  const paintings = page.chosen.style.length;
  const kinds = [["keep", "where the photograph is kept"]];
  for (let place = 0; place < paintings - 1; place++) kinds.push([String(place), `where painting ${place + 1} goes`]);
  byId("mask-which").replaceChildren(...kinds.map(([value, text]) => element("option", { value }, text)));
  const names = [page.chosen.keep, ...Array.from({ length: Math.max(paintings - 1, 0) }, (_, place) => page.chosen.mask[place])];
  board.layers = await Promise.all(kinds.map((_, place) => layer(width, height, tints[place % tints.length], names[place])));
  board.place = 0;
  Object.assign(byId("board").querySelector("canvas"), { width, height });
  byId("mask-note").textContent = "";
  byId("masks").showModal();
  showBoard();
}

// A mask as it is drawn: a tint where it is white.
async function layer(width, height, tint, name) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const made = { canvas, tint, drawn: false };
  if (name) {
    const image = new Image();
    image.src = inputAddress(name);
    await image.decode();
    const drawing = canvas.getContext("2d");
    drawing.drawImage(image, 0, 0, width, height);
    const data = drawing.getImageData(0, 0, width, height);
    for (let place = 0; place < data.data.length; place += 4) data.data[place + 3] = data.data[place];
    drawing.putImageData(data, 0, 0);
    drawing.globalCompositeOperation = "source-in";
    drawing.fillStyle = tint;
    drawing.fillRect(0, 0, width, height);
    made.drawn = true;
  }
  return made;
}

function showBoard() {
  const canvas = byId("board").querySelector("canvas"), drawing = canvas.getContext("2d");
  drawing.clearRect(0, 0, canvas.width, canvas.height);
  for (const one of board.layers) drawing.drawImage(one.canvas, 0, 0);
  if (board.cursor) {
    drawing.beginPath();
    drawing.arc(board.cursor[0], board.cursor[1], radius(), 0, 2 * Math.PI);
    drawing.lineWidth = 3;
    drawing.strokeStyle = "#fff";
    drawing.stroke();
  }
}

const radius = () => {
  const canvas = byId("board").querySelector("canvas");
  return (Number(byId("brush").value) / 200) * Math.max(canvas.width, canvas.height);
};

function stroke(from, to) {
  const one = board.layers[board.place], drawing = one.canvas.getContext("2d");
  drawing.globalCompositeOperation = byId("erase").checked ? "destination-out" : "source-over";
  drawing.strokeStyle = one.tint;
  drawing.lineWidth = 2 * radius();
  drawing.lineCap = "round";
  drawing.beginPath();
  drawing.moveTo(...from);
  drawing.lineTo(to[0] + 0.01, to[1]);
  drawing.stroke();
  one.drawn = one.drawn || !byId("erase").checked;
  one.changed = true;
  showBoard();
}

function onBoard() {
  const canvas = byId("board").querySelector("canvas");
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    board.cursor = null;
    board.at = place(event);
    stroke(board.at, board.at);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!board.at) return;
    const to = place(event);
    stroke(board.at, to);
    board.at = to;
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (board.at = null));
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], " ": [0, 0] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    board.cursor = board.cursor || [canvas.width / 2, canvas.height / 2];
    const by = Math.max(2, radius() / 2), most = [canvas.width, canvas.height];
    board.cursor = board.cursor.map((at, axis) => Math.min(most[axis], Math.max(0, at + by * step[axis])));
    if (event.key === " ") stroke(board.cursor, board.cursor);
    else showBoard();
  });
  byId("mask-which").addEventListener("change", () => (board.place = byId("mask-which").selectedIndex));
  byId("mask-clear").addEventListener("click", () => {
    const one = board.layers[board.place];
    one.canvas.getContext("2d").clearRect(0, 0, one.canvas.width, one.canvas.height);
    Object.assign(one, { drawn: false, changed: true });
    showBoard();
  });
  byId("mask-done").addEventListener("click", doing(takeMasks));
}

// White where it is painted, on black.
async function saved(one, name) {
  const { width, height } = one.canvas;
  const white = Object.assign(document.createElement("canvas"), { width, height }), paint = white.getContext("2d");
  paint.drawImage(one.canvas, 0, 0);
  paint.globalCompositeOperation = "source-in";
  paint.fillStyle = "#fff";
  paint.fillRect(0, 0, width, height);
  paint.globalCompositeOperation = "destination-over";
  paint.fillStyle = "#000";
  paint.fillRect(0, 0, width, height);
  const blob = await new Promise((resolve) => white.toBlob(resolve, "image/png"));
  return (await bringIn(new File([blob], name), "mask")).name;
}

function isPainted(one) {
  const { data } = one.canvas.getContext("2d").getImageData(0, 0, one.canvas.width, one.canvas.height);
  for (let place = 3; place < data.length; place += 4) if (data[place]) return true;
  return false;
}

async function takeMasks() {
  for (const one of board.layers) one.drawn = isPainted(one); // it may all have been erased
  const [kept, ...places] = board.layers;
  const without = places.findIndex((one) => !one.drawn);
  if (without >= 0 && places.some((one) => one.drawn)) {
    byId("mask-note").textContent = `Painting ${without + 1} has no place yet.`;
    return;
  }
  byId("masks").close();
  if (kept.changed) page.chosen.keep = kept.drawn ? await saved(kept, "keep.png") : null;
  if (places.some((one) => one.changed))
    page.chosen.mask = places.some((one) => one.drawn) ? await Promise.all(places.map((one, place) => saved(one, `place-${place + 1}.png`))) : [];
  showChosen();
  liveChanged();
}

// ---- the beginning ----

async function begin() {
  if (location.search) history.replaceState(null, "", location.pathname); // the token is in a cookie now
  page.about = await ask("about");
  const { about } = page;
  byId("size").max = about.largest;
  byId("model").replaceChildren(...about.models.map((name) => element("option", { value: name }, name === "draft" ? "draft (built in)" : fileName(name))));
  byId("colors").replaceChildren(...about.colors.map((name) => element("option", { value: name }, { painting: "the painting's", photograph: "the photograph's" }[name] || `the photograph's, ${name}`)));
  byId("notice").hidden = !about.fetch;
  if (about.fetch) byId("notice").replaceChildren("Pictures are made with the small built-in network. The real one, VGG-19, is got with ", element("code", {}, about.fetch), "; then start the studio anew.");
  byId("folder").textContent = `kept in ${about.folder}`;
  fill({ content: "", style: [], mask: [], keep: null, options: {}, ...(remembered() || {}) });
  showStage();
  showStrip();

  dropZone("drop-content", async (file) => {
    const { name } = await bringIn(file, "photograph");
    if (name !== page.chosen.content) Object.assign(page.chosen, { mask: [], keep: null });
    page.chosen.content = name;
    if (!page.run) page.view = { kind: "run" };
  });
  dropZone("drop-style", async (file) => {
    const { name } = await bringIn(file, "painting");
    if (page.chosen.style.length >= about.paintings) throw new Error(`${about.paintings} paintings are enough`);
    page.chosen.style.push(name);
    page.chosen.mask = [];
  });
  byId("content").addEventListener("input", () => (page.wanted = 0));
  for (const name of ["content", "style-size", "variation"]) {
    byId(name).addEventListener("input", showValues);
    byId(name).addEventListener("change", liveChanged);
  }
  for (const name of ["colors", "content-layers", "iterations"]) byId(name).addEventListener("change", liveChanged);
  for (const name of ["size", "model", "init"]) byId(name).addEventListener("change", chosenChanged);
  byId("setup").addEventListener("submit", (event) => {
    event.preventDefault();
    doing(async () => {
      fail("");
      if (!page.run) page.view = { kind: "run" };
      await send("runs", formNow());
    })();
  });
  byId("pause").addEventListener("click", doing(() => send(`run/${page.run.number}/${page.run.status === "paused" ? "resume" : "pause"}`)));
  byId("stop").addEventListener("click", doing(() => send(`run/${page.run.number}/stop`)));
  byId("larger").addEventListener("change", doing(async () => {
    const factor = Number(byId("larger").value), made = pictureInView();
    byId("larger").value = "";
    const options = (made || page.run).form.options;
    const size = Math.min(about.largest, Math.round(Number(options.size || about.size) * factor));
    if (made && !page.run) page.view = { kind: "run" };
    await send(made ? `pictures/${made.number}/larger` : `run/${page.run.number}/larger`, { size });
  }));
  byId("beside").addEventListener("change", showStage);
  byId("wipe").addEventListener("input", wiped);
  byId("under").addEventListener("load", wiped);
  addEventListener("resize", wiped);
  byId("again").addEventListener("click", () => makeAgain(page.view.number)());
  byId("use").addEventListener("click", () => {
    fill(pictureInView().form);
    byId("setup").scrollIntoView({ block: "nearest" });
  });
  byId("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(byId("command").textContent).catch(() => getSelection().selectAllChildren(byId("command")));
    byId("copy").textContent = "Copied";
    setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
  });
  byId("error").querySelector("button").addEventListener("click", () => fail(""));
  byId("open-masks").addEventListener("click", doing(openMasks));
  onBoard();
  // A file dropped beside the zones shall not replace the page.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  listen();
}

doing(begin)();
