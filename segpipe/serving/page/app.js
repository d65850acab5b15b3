// The page sends an image to /v1/segment and draws the returned mask itself, so that opacity and classes change at once.

const $ = (id) => document.getElementById(id);
const MAX_DRAWN_PIXELS = 8e6; // a larger image is drawn at a reduced size; the saved mask always has the full size
const MODEL_REFRESH_MS = 15000;

const state = { file: null, answer: null, ids: null, width: 0, height: 0, hidden: new Set(), limits: null, request: null };

// ---------------------------------------------------------------------------------------------------------------- requests
async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Error(answer.error ?? `The server answered ${response.status}.`);
}

function post(file, query, signal) {
  const body = new FormData();
  body.append("image", file, file.name || "image");
  return ask(`v1/segment?${query}`, { method: "POST", body, signal });
}

async function segment(file, channel = "") {
  const limit = state.limits?.max_upload_mb;
  if (limit && file.size > limit * 2 ** 20) return fail(`${file.name} is too large: at most ${limit} MB.`);
  state.request?.abort();
  const request = (state.request = new AbortController());
  $("stage").classList.add("working");
  $("error").hidden = true;
  try {
    const shown = channel === "" ? "" : `&channel=${channel}`;
    const bitmap = shown ? null : await createImageBitmap(file).catch(() => null); // null: TIFF and other formats that only the server can decode
    const answer = await (await post(file, `format=json&preview=${bitmap === null}${shown}`, request.signal)).json();
    const photo = bitmap ?? (await decode(answer.preview.data));
    const mask = await decode(answer.mask.data);
    if (request !== state.request) return;
    Object.assign(state, { file, answer });
    offerChannels(answer.channels, channel);
    state.hidden = new Set(answer.classes.flatMap((c, i) => (c.color.some(Boolean) ? [] : [i]))); // a black class is the background
    draw(photo, mask);
    showAnswer();
    loadModel();
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  } finally {
    if (request === state.request) $("stage").classList.remove("working");
  }
}

function offerChannels(count, channel) {
  const names = count === 2 ? [] : ["first three"]; // of two channels the first is shown
  const options = names.map((name) => new Option(name, "")).concat(Array.from({ length: count }, (_, k) => new Option(`${k + 1}`, k)));
  $("channel").replaceChildren(...options);
  $("channel").value = channel === "" && count === 2 ? "0" : channel;
  $("channels").hidden = count === 1 || count === 3;
}

async function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" }; // the pixels are class ids and must not change
  return createImageBitmap(new Blob([bytes], { type: "image/png" }), options);
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = false;
}

async function save(format) {
  try {
    const opacity = $("opacity").value / 100;
    const blob = await (await post(state.file, `format=${format}&alpha=${opacity}${$("channels").hidden || $("channel").value === "" ? "" : `&channel=${$("channel").value}`}`)).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    const suffix = blob.type === "application/gzip" ? "nii.gz" : "png"; // a volume's mask is a volume
    link.download = `${(state.file.name || "image").replace(/(\.nii\.gz|\.[^.]*)$/, "")}-${format}.${suffix}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  } catch (error) {
    fail(error.message);
  }
}

// ---------------------------------------------------------------------------------------------------------------- drawing
function draw(photo, mask) {
  const scale = Math.min(1, Math.sqrt(MAX_DRAWN_PIXELS / (mask.width * mask.height)));
  state.width = Math.max(1, Math.round(mask.width * scale));
  state.height = Math.max(1, Math.round(mask.height * scale));
  for (const id of ["photo", "fill", "edges"]) Object.assign($(id), { width: state.width, height: state.height });
  $("photo").getContext("2d").drawImage(photo, 0, 0, state.width, state.height);
  const scratch = new OffscreenCanvas(state.width, state.height).getContext("2d", { willReadFrequently: true });
  scratch.imageSmoothingEnabled = false;
  scratch.drawImage(mask, 0, 0, state.width, state.height);
  const rgba = scratch.getImageData(0, 0, state.width, state.height).data;
  state.ids = new Uint8Array(state.width * state.height);
  for (let i = 0; i < state.ids.length; i++) state.ids[i] = rgba[4 * i];
  $("view").hidden = false;
  $("stage").dataset.state = "shown";
  fit();
  paint();
}

function fit() {
  // Limited by the width of the stage and 72 % of the window's height; small images are enlarged at most three times.
  if (!state.ids) return;
  const available = $("stage").clientWidth;
  const zoom = Math.min(available / state.width, (0.72 * window.innerHeight) / state.height, 3);
  $("view").style.width = `${Math.round(state.width * zoom)}px`;
  $("view").style.height = `${Math.round(state.height * zoom)}px`;
}

function colorsOf({ classes, overlapping }, hidden) {
  // The colour of each value in the mask. A value is a class or, if classes overlap, a set of classes as bits; a set has the mean
  // colour of its visible classes.
  const ids = classes.map((_, k) => k);
  const sets = overlapping
    ? Array.from({ length: 1 << (classes.length - 1) }, (_, bits) => ids.filter((k) => (k ? (bits >> (k - 1)) & 1 : bits === 0)))
    : ids.map((k) => [k]);
  return sets.map((members) => {
    const visible = members.filter((k) => !hidden.has(k)).map((k) => classes[k].color);
    if (!visible.length) return 0;
    const [r, g, b] = [0, 1, 2].map((c) => Math.round(visible.reduce((sum, color) => sum + color[c], 0) / visible.length));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}

function paint() {
  const { ids, width, height, answer, hidden } = state;
  const colors = colorsOf(answer, hidden);
  const fill = new ImageData(width, height);
  const edges = new ImageData(width, height);
  const filled = new Uint32Array(fill.data.buffer); // little-endian: 0xAABBGGRR
  const edged = new Uint32Array(edges.data.buffer);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const id = ids[i];
      filled[i] = colors[id];
      const edge = (x + 1 < width && ids[i + 1] !== id) || (y + 1 < height && ids[i + width] !== id)
        || (x > 0 && ids[i - 1] !== id) || (y > 0 && ids[i - width] !== id);
      if (edge) edged[i] = colors[id];
    }
  }
  $("fill").getContext("2d").putImageData(fill, 0, 0);
  $("edges").getContext("2d").putImageData(edges, 0, 0);
}

// ---------------------------------------------------------------------------------------------------------------- results
function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.001 ? 2 : 1)} %`;

function showAnswer() {
  const { answer } = state;
  $("tools").hidden = false;
  $("caption").textContent = `${state.file.name || "pasted image"} · ${answer.width} × ${answer.height} · model ${answer.version}. Press on the image, or hold the space bar, to hide the classes.`;
  showClasses(answer.classes);
}

function showClasses(classes) {
  const segmented = state.answer !== null;
  $("bar").hidden = !segmented;
  $("bar").replaceChildren(...classes.map((c) => {
    const part = element("span", { title: c.name });
    Object.assign(part.style, { flexGrow: c.share ?? 0, background: `rgb(${c.color})` });
    return part;
  }));
  $("legend").replaceChildren(...classes.map((c, i) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = `rgb(${c.color})`;
    const share = element("span", { className: "share", textContent: segmented ? percent(c.share) : "" });
    const button = element("button", { type: "button", disabled: !segmented }, swatch, element("span", { className: "name", textContent: c.name, title: c.name }), share);
    button.setAttribute("aria-pressed", String(!state.hidden.has(i)));
    button.addEventListener("click", () => {
      state.hidden.has(i) ? state.hidden.delete(i) : state.hidden.add(i);
      button.setAttribute("aria-pressed", String(!state.hidden.has(i)));
      paint();
    });
    return element("li", {}, button);
  }));
}

async function loadModel() {
  try {
    showModel(await (await ask("v1/model")).json());
  } catch (error) {
    fail(error.message);
  }
}

function showModel(model) {
  state.limits = model.limits;
  $("example").hidden = model.example === false;
  $("limits").textContent = `PNG, JPEG, TIFF, WebP or BMP, up to ${model.limits.max_upload_mb} MB and ${model.limits.max_megapixels} megapixels`;
  $("badge").replaceChildren(element("b", { textContent: model.version }), ` · ${model.candidate}`);
  document.title = `segpipe ${model.version}`;
  const facts = {
    Version: [model.version], Model: [[model.family, model.options.encoder].filter(Boolean).join(" · ")], Engine: [model.engine],
    Commit: [model.git_commit?.slice(0, 10) ?? "none", model.git_commit], Data: [model.data_hash.slice(0, 12), model.data_hash],
    Weights: [model.weights_sha256.slice(0, 12), model.weights_sha256],
    ...(model.promoted_at ? { Live: [`since ${new Date(model.promoted_at).toLocaleString()}`] } : {}),
  };
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([name, [text, title]]) => [
    element("dt", { textContent: name }), element("dd", { textContent: text, title: title ?? text }),
  ]));
  $("scores").replaceChildren(...Object.entries(model.scores).map(([name, score]) => scoreRow(name, score)));
  $("gates").replaceChildren(...model.gates.map((gate) => {
    const mark = { pass: "✓", fail: "✗" }[gate.verdict] ?? "?";
    const row = element("li", {}, element("span", { className: "mark", textContent: mark, title: gate.verdict }), element("span", { textContent: gate.sentence }));
    row.dataset.verdict = gate.verdict;
    return row;
  }));
  if (state.answer === null) showClasses(model.classes);
}

function scoreRow(name, score) {
  const interval = score.low === null ? "" : ` (${score.low.toFixed(3)} to ${score.high.toFixed(3)})`;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 6");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const band = (kind, x, width, y, height) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [key, value] of Object.entries({ class: kind, x, width, y, height })) rect.setAttribute(key, value);
    svg.append(rect);
  };
  band("value", 0, 100 * score.value, 0, 6);
  if (score.low !== null) band("range", 100 * score.low, Math.max(0.6, 100 * (score.high - score.low)), 2, 2);
  return element("div", { className: "score", title: name + interval }, element("span", { className: "name", textContent: name }), element("span", { textContent: score.value.toFixed(3) }), svg);
}

// ---------------------------------------------------------------------------------------------------------------- events
$("channel").addEventListener("change", () => segment(state.file, $("channel").value));
$("choose").addEventListener("click", () => $("file").click());
$("another").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) segment($("file").files[0]);
  $("file").value = "";
});
$("example").addEventListener("click", async () => {
  try {
    const response = await ask("v1/example");
    segment(new File([await response.blob()], response.headers.get("X-File-Name") ?? "example.png"));
  } catch (error) {
    fail(error.message);
  }
});
$("opacity").addEventListener("input", () => {
  $("fill").style.opacity = $("opacity").value / 100;
  $("opacity-value").textContent = `${$("opacity").value} %`;
});
$("outlines").addEventListener("change", () => { $("edges").hidden = !$("outlines").checked; });
$("save-mask").addEventListener("click", () => save("mask"));
$("save-overlay").addEventListener("click", () => save("overlay"));

const plain = (on) => $("view").classList.toggle("plain", on);
$("view").addEventListener("pointerdown", () => plain(true));
for (const type of ["pointerup", "pointerleave", "pointercancel"]) $("view").addEventListener(type, () => plain(false));
$("view").addEventListener("keydown", (event) => { if (event.key === " ") { event.preventDefault(); plain(true); } });
$("view").addEventListener("keyup", (event) => { if (event.key === " ") plain(false); });
$("view").addEventListener("blur", () => plain(false));

let depth = 0; // dragenter and dragleave are sent for every child element
const dragging = (change) => {
  depth = Math.max(0, depth + change);
  $("stage").classList.toggle("dragging", depth > 0);
};
window.addEventListener("dragenter", (event) => { event.preventDefault(); dragging(1); });
window.addEventListener("dragleave", () => dragging(-1));
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => {
  event.preventDefault();
  dragging(-depth);
  if (event.dataTransfer.files.length) segment(event.dataTransfer.files[0]);
});
window.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])][0];
  if (file) segment(file);
});
window.addEventListener("resize", fit);

$("origin").textContent = window.location.href.replace(/\/(index\.html)?([?#].*)?$/, "");
loadModel();
setInterval(() => { if (!document.hidden) loadModel(); }, MODEL_REFRESH_MS);
