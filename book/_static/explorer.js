// The explorer of cells: draw a cell, see what a run knows of it. Data come as IONAS_RUNS, a list of
// {label, slug, data}, as ionas/tasks/explorer.py makes data; nothing else is loaded.
"use strict";
(() => {
const LABELS = { // as STYLES in ionas/plots/style.py
  io_flatten: "IO model, flatten",
  io_mean: "IO model, mean",
  accuracy_flatten: "Accuracy model, flatten",
  accuracy_mean: "Accuracy model, mean",
  arch2vec: "arch2vec, trained jointly",
  arch2vec_original: "arch2vec, original",
  arch2vec_original_eval: "arch2vec, evaluation mode",
  latent: "arch2vec, latent matrix",
  encoding: "Plain encoding of the cell",
};
const ONE = ["1×1", "1×1 conv", "#f1ead0"], THREE = ["3×3", "3×3 conv", "#dcc98c"];
const OPERATIONS = { // short name, name, colour of the box: as in ionas/plots/cell.py
  input: ["in", "input", "#ffffff"], output: ["out", "output", "#ffffff"],
  "conv1x1-bn-relu": ONE, "conv3x3-bn-relu": THREE, "nor_conv_1x1": ONE, "nor_conv_3x3": THREE,
  maxpool3x3: ["pool", "3×3 pool", "#d5dae0"], avg_pool_3x3: ["pool", "3×3 pool", "#d5dae0"],
  skip_connect: ["skip", "skip connection", "#ffffff"], none: ["none", "none", "#aab2bd"],
};
const CIVIDIS = [[0, 34, 78], [44, 63, 108], [87, 93, 109], [125, 124, 120], [165, 156, 116], [208, 191, 98], [254, 232, 56]];
const LABEL_OF = { input: -1, "conv3x3-bn-relu": 0, "conv1x1-bn-relu": 1, maxpool3x3: 2, output: -2 }; // in the hash

// --- data ---------------------------------------------------------------------------------------

const ARRAYS = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array };

function unpack({ type, data }) {
  const text = atob(data), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return new ARRAYS[type](bytes.buffer);
}

function readRun({ label, slug, data }) {
  const run = { ...data, label, slug, rows: new Map() };
  for (const name of ["adjacency", "codes", "hashes", "accuracy", "spread", "rank", "parameters", "roles"]) run[name] = unpack(data[name]);
  run.maps = Object.keys(LABELS).filter((name) => name in data.embeddings).map((name) => {
    const { x, y, near, predicted } = data.embeddings[name];
    return { name, x: unpack(x), y: unpack(y), near: unpack(near), predicted: unpack(predicted) };
  });
  const trained = unpack(data.outputs.rows), near = unpack(data.outputs.near), count = near.length / trained.length;
  run.outputs = new Map([...trained].map((row, k) => [row, near.slice(k * count, (k + 1) * count)]));
  for (let row = 0; row < run.shown; row++) {
    const bytes = run.hashes.subarray(16 * row, 16 * row + 16);
    run.rows.set([...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(""), row);
  }
  const known = [...run.accuracy.keys()].filter((row) => run.accuracy[row] >= 0);
  run.order = known.sort((a, b) => run.accuracy[a] - run.accuracy[b]); // the best cell last
  run.low = run.accuracy[run.order[Math.floor(0.05 * run.order.length)]];
  run.high = run.accuracy[run.order[run.order.length - 1]];
  return run;
}

// --- cells: {edges: n × n of 0 and 1, codes: n operations} -----------------------------------------

const matrix = (n) => Array.from({ length: n }, () => new Array(n).fill(0));
const pairs = (n) => Array.from({ length: n }, (_, u) => Array.from({ length: n - u - 1 }, (_, k) => [u, u + 1 + k])).flat();

function cellOf(run, row) {
  const codes = [...run.codes.subarray(run.vertices * row, run.vertices * (row + 1))].filter((code) => code >= 0);
  const edges = matrix(codes.length);
  pairs(run.vertices).forEach(([u, v], bit) => { if ((run.adjacency[row] >>> bit) & 1) edges[u][v] = 1; });
  return { edges, codes };
}

// The vertices on a path from input to output, and the cell that they make; or why there is none.
function check(run, { edges, codes }) {
  const n = codes.length, last = n - 1, forward = new Set([0]), backward = new Set([last]);
  for (let v = 0; v < n; v++) for (let u = 0; u < v; u++) if (edges[u][v] && forward.has(u)) forward.add(v);
  for (let u = last; u >= 0; u--) for (let v = u + 1; v < n; v++) if (edges[u][v] && backward.has(v)) backward.add(u);
  const kept = codes.map((_, v) => v).filter((v) => forward.has(v) && backward.has(v));
  if (!kept.length) return { kept, problem: "no path leads from the input to the output" };
  const cell = { edges: kept.map((u) => kept.map((v) => edges[u][v])), codes: kept.map((v) => codes[v]) };
  const count = cell.edges.flat().reduce((sum, edge) => sum + edge, 0);
  if (count > run.edges) return { kept, problem: `${count} edges after pruning; at most ${run.edges}` };
  return { kept, cell, hash: hash(run, cell) };
}

// The public hash of a cell, as ionas.space.nasbench101.graph_hash and CellSet.hashes compute it.
function hash(run, { edges, codes }) {
  const names = codes.map((code) => run.operations[code]), vertices = names.map((_, v) => v);
  if (run.wiring) {
    const [, a, b, c, d, e, f] = names;
    return md5(`|${a}~0|+|${b}~0|${c}~1|+|${d}~0|${e}~1|${f}~2|`);
  }
  const sources = vertices.map((v) => vertices.filter((u) => edges[u][v]));
  const targets = vertices.map((u) => vertices.filter((v) => edges[u][v]));
  let digests = vertices.map((v) => md5(`(${targets[v].length}, ${sources[v].length}, ${LABEL_OF[names[v]]})`));
  for (let round = 0; round < names.length; round++) {
    const joined = (near) => near.map((v) => digests[v]).sort().join("");
    digests = vertices.map((v) => md5(`${joined(sources[v])}|${joined(targets[v])}|${digests[v]}`));
  }
  return md5(`['${digests.sort().join("', '")}']`);
}

const SINES = Int32Array.from({ length: 64 }, (_, i) => Math.floor(Math.abs(Math.sin(i + 1)) * 2 ** 32));
const TURNS = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

function md5(text) { // of ASCII
  const words = new Int32Array((((text.length + 8) >> 6) + 1) * 16);
  for (let i = 0; i < text.length; i++) words[i >> 2] |= text.charCodeAt(i) << (8 * (i % 4));
  words[text.length >> 2] |= 0x80 << (8 * (text.length % 4));
  words[words.length - 2] = 8 * text.length;
  const state = Int32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476);
  for (let start = 0; start < words.length; start += 16) {
    let [a, b, c, d] = state;
    for (let i = 0; i < 64; i++) {
      const round = i >> 4;
      const mixed = [(b & c) | (~b & d), (d & b) | (~d & c), b ^ c ^ d, c ^ (b | ~d)][round];
      const place = [i, 5 * i + 1, 3 * i + 5, 7 * i][round] % 16;
      const sum = (a + mixed + SINES[i] + words[start + place]) | 0, turn = TURNS[round][i % 4];
      [a, d, c, b] = [d, c, b, (b + ((sum << turn) | (sum >>> (32 - turn)))) | 0];
    }
    [a, b, c, d].forEach((value, k) => { state[k] += value; });
  }
  return [...new Uint8Array(state.buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- the address: #run=SLUG&cell=BITS-OPERATIONS of a drawing, or cell=HASH ------------------------

function drawingOf(run, { edges, codes }) { // a cell on the vertices of the canvas, output last
  const n = run.vertices, free = run.wiring ? 1 : run.operations.indexOf("conv3x3-bn-relu");
  const place = codes.map((_, v) => (v === codes.length - 1 ? n - 1 : v));
  const drawing = { edges: matrix(n), codes: new Array(n).fill(free) };
  drawing.codes[0] = 0;
  place.forEach((at, v) => { drawing.codes[at] = codes[v]; });
  codes.forEach((_, u) => codes.forEach((_, v) => { if (edges[u][v]) drawing.edges[place[u]][place[v]] = 1; }));
  return drawing;
}

function addressOf(run, { edges, codes }) {
  const bits = pairs(codes.length).map(([u, v]) => edges[u][v]).join("");
  return `#run=${run.slug}&cell=${bits}-${codes.slice(1, -1).join("")}`;
}

function readAddress(runs, address) {
  const given = new URLSearchParams(address.replace(/^#/, ""));
  const run = runs.find(({ slug }) => slug === given.get("run")) || runs[0], text = given.get("cell") || "";
  const best = run.order[run.order.length - 1], n = run.vertices;
  const [, bits, digits] = /^([01]+)-(\d*)$/.exec(text) || [];
  const most = run.operations.length - 2, fits = [...(digits || "")].every((digit) => digit >= 1 && digit <= most);
  if (bits && bits.length === pairs(n).length && digits.length === n - 2 && fits) {
    const edges = matrix(n);
    pairs(n).forEach(([u, v], k) => { edges[u][v] = Number(bits[k]); });
    return { run, drawing: { edges, codes: [0, ...[...digits].map(Number), most + 1] }, unknown: "" };
  }
  const row = run.rows.get(text);
  const unknown = text && row === undefined ? "The address names no cell of this run; here is its best one. " : "";
  return { run, drawing: drawingOf(run, cellOf(run, row ?? best)), unknown };
}

// --- small drawings -----------------------------------------------------------------------------

// Layers by the longest path, way points where an edge crosses a layer: as ionas.plots.cell does.
function layout(edges) {
  const n = edges.length, layer = new Array(n).fill(0), routes = [];
  for (let v = 0; v < n; v++) for (let u = 0; u < v; u++) if (edges[u][v]) layer[v] = Math.max(layer[v], layer[u] + 1);
  for (const [u, v] of pairs(n)) {
    if (!edges[u][v]) continue;
    const way = [];
    for (let k = layer[u] + 1; k < layer[v]; k++) way.push(layer.push(k) - 1);
    routes.push([u, ...way, v]);
  }
  const near = layer.map(() => []), x = layer.map(() => 0);
  for (const route of routes) route.slice(1).forEach((b, k) => { near[route[k]].push(b); near[b].push(route[k]); });
  const rows = Array.from({ length: Math.max(...layer) + 1 }, (_, k) => layer.map((_, p) => p).filter((p) => layer[p] === k));
  const middle = (p) => near[p].reduce((sum, q) => sum + x[q], 0) / (near[p].length || 1);
  for (let sweep = 0; sweep < 8; sweep++) {
    for (const row of sweep % 2 ? [...rows].reverse() : rows) {
      const means = new Map(row.map((p) => [p, middle(p)]));
      row.sort((a, b) => means.get(a) - means.get(b) || a - b);
      const widths = row.map((p) => (p < n ? 1 : 0.3)), whole = widths.reduce((a, b) => a + b, 0);
      row.reduce((left, p, k) => { x[p] = left + widths[k] / 2 - whole / 2; return left + widths[k]; }, 0);
    }
  }
  return { points: x.map((value, p) => [value, layer[p]]), routes };
}

function picture(run, { edges, codes }) {
  const { points, routes } = layout(edges), W = 32, H = 18, at = points.map(([x, y]) => [36 * x, 30 * y]);
  const xs = at.map(([x]) => x), left = Math.min(...xs) - W / 2 - 1, width = Math.max(...xs) - left + W / 2 + 1;
  const height = Math.max(...at.map(([, y]) => y)) + H + 2;
  const lines = routes.map((route) => {
    const stops = route.flatMap((p) => [[at[p][0], at[p][1] - H / 2], [at[p][0], at[p][1] + H / 2]]).slice(1, -1);
    const [end] = stops.slice(-1), bends = stops.slice(1).map(([x, y], k) => {
      const [px, py] = stops[k], half = (py + y) / 2;
      return `C${px} ${half} ${x} ${half} ${x} ${y}`;
    });
    return `<path d="M${stops[0]}${bends.join("")}"/><path class="tip" d="M${end}l-3-5h6z"/>`;
  });
  const boxes = codes.map((code, v) => {
    const [short, , color] = OPERATIONS[run.operations[code]], [x, y] = at[v];
    return `<rect x="${x - W / 2}" y="${y - H / 2}" width="${W}" height="${H}" rx="4" fill="${color}"/><text x="${x}" y="${y + 4}">${short}</text>`;
  });
  return `<svg class="cell" aria-hidden="true" width="${width}" height="${height}" viewBox="${left} ${-H / 2 - 1} ${width} ${height}">${lines.join("")}${boxes.join("")}</svg>`;
}

// --- words --------------------------------------------------------------------------------------

const number = (value) => value.toLocaleString("en-US");
const accuracy = (steps) => (steps < 0 ? "unknown" : (steps / 10000).toFixed(4));
const escaped = (text) => String(text).replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);
const spread = (run, row) => (run.spread[row] < 0 ? "" : ` ± ${accuracy(run.spread[row])}`);
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function words(run, { edges, codes }) { // a cell for those who hear it
  const names = codes.slice(1, -1).map((code) => OPERATIONS[run.operations[code]][1]);
  return `${plural(codes.length, "vertex").replace("vertexs", "vertices")}, ${plural(edges.flat().filter(Boolean).length, "edge")}${names.length ? `: ${names.join(", ")}` : ""}`;
}

function linked(run, row) { // a neighbour: small drawing and accuracy, a link to the cell
  const cell = cellOf(run, row), rank = run.rank[row] < 0 ? "" : `#${number(run.rank[row])}`;
  const heard = `accuracy ${accuracy(run.accuracy[row])}, rank ${number(run.rank[row])}; ${words(run, cell)}`;
  return `<a class="near" href="${addressOf(run, drawingOf(run, cell))}" aria-label="${heard}">${picture(run, cell)}
    <span>${accuracy(run.accuracy[row])}</span><small>${rank}</small></a>`;
}

// --- the page ------------------------------------------------------------------------------------

const root = document.getElementById("explorer");
if (!root) return;
const runs = (window.IONAS_RUNS || []).map(readRun);
window.ionasExplorer = { runs, check, cellOf, drawingOf, addressOf, layout }; // for the console and tests
if (!runs.length) {
  root.textContent = "No run of this book has data for the explorer: run notebook 07, then build the book again.";
  return;
}
root.innerHTML = `
  <div class="bar">
    <label ${runs.length < 2 ? "hidden" : ""}>Run <select id="ex-run">${runs.map(({ label, slug }) => `<option value="${slug}">${escaped(label)}</option>`).join("")}</select></label>
    <button type="button" data-go="best">Best cell</button>
    <button type="button" data-go="middle">Median cell</button>
    <button type="button" data-go="random">Random cell</button>
    <button type="button" data-go="trained">Cell with a trained network</button>
  </div>
  <p id="ex-verdict" class="verdict" role="status" aria-live="polite"></p>
  <div class="top">
    <div class="editor">
      <div id="ex-board"><svg id="ex-canvas" viewBox="0 0 360 400" role="group" aria-label="Drawing of the cell" aria-describedby="ex-help"></svg></div>
      <p id="ex-help" class="help"></p>
      <div id="ex-operations" class="operations" role="group" aria-label="Operations"></div>
      <div id="ex-pruned"></div>
    </div>
    <div class="facts">
      <dl id="ex-facts"></dl>
      <div id="ex-predicted"></div>
    </div>
  </div>
  <h2 id="ex-outputs-title">Nearest by what the networks compute</h2>
  <div id="ex-outputs" class="nears"></div>
  <h2>In each embedding</h2>
  <p id="ex-about"></p>
  <div class="scale"><span id="ex-low"></span><canvas id="ex-scale" width="240" height="10" aria-hidden="true"></canvas><span id="ex-high"></span></div>
  <div id="ex-cards"></div>`;
const get = (id) => document.getElementById(`ex-${id}`);
const canvas = get("canvas"), board = get("board"), drawn = new Map(); // maps of each run, drawn once
let state = readAddress(runs, location.hash), chosen = -1, focused = 0, message = "";

function go(run, drawing) { location.hash = addressOf(run, drawing); }
function goRow(row) { go(state.run, drawingOf(state.run, cellOf(state.run, row))); }

// --- the editor

function places(n) { // on an oval, so that no edge runs behind a vertex
  return Array.from({ length: n }, (_, v) => {
    const angle = (Math.PI * v) / (n - 1), side = v % 2 ? -1 : 1;
    return [180 + side * 144 * Math.sqrt(Math.sin(angle)), 28 + (344 * v) / (n - 1)];
  });
}

function nameOf(run, v) {
  const last = run.vertices - 1, name = OPERATIONS[run.operations[state.drawing.codes[v]]][1];
  return v === 0 || v === last ? name : `vertex ${v}, ${name}`;
}

function drawEditor({ kept }) {
  const { run, drawing } = state, n = run.vertices, at = places(n), W = 64, H = 38;
  const used = new Set(kept);
  const border = ([x, y], [tx, ty]) => { // where the line to (tx, ty) leaves the box
    const t = Math.min(W / 2 / (Math.abs(tx - x) || 1e-9), H / 2 / (Math.abs(ty - y) || 1e-9));
    return [x + t * (tx - x), y + t * (ty - y)];
  };
  const lines = pairs(n).filter(([u, v]) => drawing.edges[u][v]).map(([u, v]) => {
    const [a, b] = [border(at[u], at[v]), border(at[v], at[u])], angle = (Math.atan2(b[1] - a[1], b[0] - a[0]) * 180) / Math.PI;
    const idle = used.has(u) && used.has(v) ? "" : " idle";
    return `<g class="edge${idle}" data-edge="${u},${v}"><path class="hit" d="M${a}L${b}"/><path d="M${a}L${b}"/>
      <path class="tip" d="M0 0l-9-4.5v9z" transform="translate(${b}) rotate(${angle})"/></g>`;
  });
  const boxes = at.map(([x, y], v) => {
    const [, name, color] = OPERATIONS[run.operations[drawing.codes[v]]], inner = v > 0 && v < n - 1;
    const targets = pairs(n).filter(([u, w]) => u === v && drawing.edges[u][w]).map(([, w]) => nameOf(run, w));
    const heard = `${nameOf(run, v)}${targets.length ? `, edges to ${targets.join(" and ")}` : v < n - 1 ? ", no edge goes out" : ""}${used.has(v) ? "" : ", not part of the cell"}`;
    const text = inner ? `<text x="${x}" y="${y - 3}">${v}</text><text x="${x}" y="${y + 12}">${OPERATIONS[run.operations[drawing.codes[v]]][0]}</text>` : `<text x="${x}" y="${y + 5}">${name}</text>`;
    return `<g class="vertex${used.has(v) ? "" : " idle"}${v === chosen ? " chosen" : ""}" data-v="${v}" role="button" aria-pressed="${v === chosen}" tabindex="${v === focused ? 0 : -1}" aria-label="${heard}">
      <rect x="${x - W / 2}" y="${y - H / 2}" width="${W}" height="${H}" rx="8" fill="${color}"/>${text}</g>`;
  });
  const held = canvas.contains(document.activeElement);
  canvas.innerHTML = lines.join("") + boxes.join("");
  if (held) canvas.querySelector(`[data-v="${focused}"]`).focus();
  get("help").innerHTML = run.wiring
    ? "All cells of this space have the same edges: choose the operations."
    : chosen < 0
      ? "Choose two vertices, one after the other, to add an edge between them or take it away. <span class='keys'>By keyboard: arrow keys and Enter; number keys set the operation.</span>"
      : `From ${nameOf(run, chosen)}: choose the vertex to connect or disconnect. Escape lets go.`;
}

function drawOperations() {
  const { run, drawing } = state, options = run.operations.slice(1, -1);
  const held = document.activeElement && document.activeElement.dataset.operation;
  get("operations").innerHTML = drawing.codes.slice(1, -1).map((code, k) => `<label>${k + 1} <select data-operation="${k + 1}" aria-label="operation of vertex ${k + 1}">
    ${options.map((name, o) => `<option value="${o + 1}"${o + 1 === code ? " selected" : ""}>${OPERATIONS[name][1]}</option>`).join("")}</select></label>`).join("");
  if (held) get("operations").querySelector(`[data-operation="${held}"]`)?.focus();
}

function changed(change) { // the drawing with a change, into the address
  const drawing = { edges: state.drawing.edges.map((row) => [...row]), codes: [...state.drawing.codes] };
  change(drawing);
  go(state.run, drawing);
}

function toggle(u, v) {
  const [a, b] = u < v ? [u, v] : [v, u];
  changed(({ edges }) => { edges[a][b] = 1 - edges[a][b]; });
}

function choose(v) {
  focused = v;
  if (state.run.wiring) return show();
  const from = chosen;
  chosen = from < 0 ? v : -1;
  if (from >= 0 && from !== v) toggle(from, v);
  else show();
}

function setOperation(v, code) { changed(({ codes }) => { codes[v] = code; }); }

board.addEventListener("click", (event) => {
  const vertex = event.target.closest("[data-v]"), edge = event.target.closest("[data-edge]");
  if (vertex) choose(Number(vertex.dataset.v));
  else if (edge && !state.run.wiring) toggle(...edge.dataset.edge.split(",").map(Number));
  else if (chosen >= 0) { chosen = -1; show(); }
});
board.addEventListener("focusin", (event) => {
  const vertex = event.target.closest("[data-v]");
  if (vertex) focused = Number(vertex.dataset.v);
});
board.addEventListener("keydown", (event) => {
  const n = state.run.vertices, step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const code = Number(event.key);
  if (step) {
    canvas.querySelector(`[data-v="${focused}"]`).tabIndex = -1;
    focused = (focused + step + n) % n;
    const vertex = canvas.querySelector(`[data-v="${focused}"]`);
    vertex.tabIndex = 0;
    vertex.focus();
  } else if (event.key === "Enter" || event.key === " ") choose(focused);
  else if (event.key === "Escape") { chosen = -1; show(); }
  else if (code >= 1 && code <= state.run.operations.length - 2 && focused > 0 && focused < n - 1) setOperation(focused, code);
  else return;
  event.preventDefault();
});
get("operations").addEventListener("change", ({ target }) => setOperation(Number(target.dataset.operation), Number(target.value)));
get("run").addEventListener("change", ({ target }) => { // the same cell, if the other run can draw it
  const run = runs.find(({ slug }) => slug === target.value), { cell } = check(state.run, state.drawing);
  const same = cell && cell.codes.length <= run.vertices && run.operations.join() === state.run.operations.join();
  go(run, drawingOf(run, same ? cell : cellOf(run, run.order[run.order.length - 1])));
});
root.querySelector(".bar").addEventListener("click", ({ target }) => {
  const { order, outputs } = state.run, any = (rows) => rows[Math.floor(Math.random() * rows.length)];
  const rows = { best: () => order[order.length - 1], middle: () => order[order.length >> 1], random: () => any(order), trained: () => any([...outputs.keys()]) };
  if (target.dataset.go) goRow(rows[target.dataset.go]());
});

// --- maps

const SIDE = 220, RIM = 10;

function color(run, steps) {
  const place = Math.min(Math.max((steps - run.low) / (run.high - run.low || 1), 0), 1) * (CIVIDIS.length - 1);
  const k = Math.min(Math.floor(place), CIVIDIS.length - 2);
  return `rgb(${CIVIDIS[k].map((from, c) => Math.round(from + (place - k) * (CIVIDIS[k + 1][c] - from))).join()})`;
}

function stretched(values) { // to the width of a map
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  return Float32Array.from(values, (value) => RIM + ((value - low) / span) * (SIDE - 2 * RIM));
}

function dot(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
}

function sheet() { // a canvas of the side of a map, sharp on this screen
  const made = document.createElement("canvas"), ratio = window.devicePixelRatio || 1;
  made.width = made.height = SIDE * ratio;
  made.getContext("2d").scale(ratio, ratio);
  return made;
}

function readyMaps(run) { // drawn once; the best cells on top
  if (!drawn.has(run)) {
    drawn.set(run, run.maps.map((map) => {
      const x = stretched(map.x), y = stretched(map.y).map((value) => SIDE - value), under = sheet(), context = under.getContext("2d");
      context.lineWidth = 0.5;
      context.strokeStyle = "#1f293399";
      for (const row of run.order) {
        context.fillStyle = color(run, run.accuracy[row]);
        dot(context, x[row], y[row], 2.2);
        context.fill();
        context.stroke();
      }
      return { ...map, x, y, under };
    }));
  }
  return drawn.get(run);
}

function paint(target, map, row, count) {
  const context = target.getContext("2d");
  context.clearRect(0, 0, SIDE, SIDE);
  context.drawImage(map.under, 0, 0, SIDE, SIDE);
  if (row === undefined) return;
  const rings = [...map.near.subarray(count * row, count * (row + 1))].map((near) => [near, 4, 1.5]);
  for (const [at, radius, width] of [...rings, [row, 7, 3]]) {
    for (const [style, wide] of [["#fff", width + 2], ["#111", width]]) {
      context.strokeStyle = style;
      context.lineWidth = wide;
      dot(context, map.x[at], map.y[at], radius);
      context.stroke();
    }
  }
}

function pick(map, x, y, reach, accepts = () => true) { // the nearest cell that is accepted
  let best, least = reach * reach;
  for (const row of state.run.order) {
    const dx = map.x[row] - x, dy = map.y[row] - y, apart = dx * dx + dy * dy;
    if (apart < least && accepts(dx, dy)) { best = row; least = apart; }
  }
  return best;
}

function drawCards(row) {
  const { run } = state, maps = readyMaps(run), cards = get("cards");
  if (cards.dataset.run !== run.slug) {
    cards.dataset.run = run.slug;
    cards.innerHTML = maps.map(({ name }) => `<section class="card" data-name="${name}"><h3>${LABELS[name]}</h3>
      <div class="map" tabindex="0" role="application" aria-label="Map of ${LABELS[name]}: arrow keys go to the next cell that way"></div><div class="nears"></div></section>`).join("");
    maps.forEach((map, k) => {
      const holder = cards.children[k].querySelector(".map"), inner = sheet();
      holder.append(inner);
      inner.addEventListener("click", (event) => {
        const box = inner.getBoundingClientRect(), scale = SIDE / box.width;
        const found = pick(map, (event.clientX - box.left) * scale, (event.clientY - box.top) * scale, 24);
        if (found !== undefined) goRow(found);
      });
      holder.addEventListener("keydown", (event) => {
        const [ux, uy] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key] || [];
        if (ux === undefined) return;
        event.preventDefault();
        const from = rowOf() ?? run.order[run.order.length - 1];
        const next = pick(map, map.x[from], map.y[from], SIDE, (dx, dy) => ux * dx + uy * dy > Math.max(0.01, Math.abs(uy * dx + ux * dy)));
        if (next !== undefined) goRow(next);
      });
    });
  }
  maps.forEach((map, k) => {
    const card = cards.children[k], count = map.near.length / run.shown;
    paint(card.querySelector("canvas"), map, row, count);
    card.querySelector(".nears").innerHTML = row === undefined ? "<p>This cell is not on the map.</p>" : [...map.near.subarray(count * row, count * (row + 1))].map((near) => linked(run, near)).join("");
  });
}

function predictions(run, row) { // a dot per forest on the scale of accuracies, the measured one as a line
  const measured = run.accuracy[row], at = (steps) => `${Math.min(Math.max((100 * (steps - run.low)) / (run.high - run.low || 1), 0), 100)}%`;
  const lines = run.maps.map(({ name, predicted }) => {
    const off = predicted[row] - measured, sign = off < 0 ? "−" : "+";
    return `<tr><th scope="row">${LABELS[name]}</th><td>${accuracy(predicted[row])}</td><td>${measured < 0 ? "" : sign + accuracy(Math.abs(off))}</td>
      <td class="track" aria-hidden="true"><i style="left:${at(measured)}" ${measured < 0 ? "hidden" : ""}></i><b style="left:${at(predicted[row])}"></b></td></tr>`;
  });
  const said = run.roles[row] & 4 ? "The forests were fitted on this cell, so these are no predictions:" : "What the forest on each embedding predicts, and how far off it is (dot; the line is the measured accuracy):";
  return `<p>${said}</p><table class="forests"><tbody>${lines.join("")}</tbody></table>`;
}

function drawScale(run) {
  const context = get("scale").getContext("2d");
  for (let k = 0; k < 240; k++) {
    context.fillStyle = color(run, run.low + (k / 239) * (run.high - run.low));
    context.fillRect(k, 0, 1, 10);
  }
  get("low").textContent = `test accuracy up to ${accuracy(run.low)}`;
  get("high").textContent = accuracy(run.high);
}

// --- all of it

function rowOf() {
  const { hash: name } = check(state.run, state.drawing);
  return name && state.run.rows.get(name);
}

function show() {
  const { run, drawing } = state, found = check(run, drawing), row = found.hash && run.rows.get(found.hash);
  get("run").value = run.slug;
  drawEditor(found);
  drawOperations();
  const facts = [];
  if (found.problem) message = `Not a cell: ${found.problem}.`;
  else if (row === undefined) {
    message = run.shown < run.cells
      ? `A valid cell, but none of the ${number(run.shown)} of ${number(run.cells)} cells that this page holds.`
      : "A valid cell, but the table of this run does not have it.";
  } else {
    message = run.accuracy[row] < 0 ? "The accuracy of this cell is unknown."
      : `Measured test accuracy ${accuracy(run.accuracy[row])}${spread(run, row)}, rank ${number(run.rank[row])} of ${number(run.known)}.`;
    if (run.spread[row] >= 0) facts.push([`± ${accuracy(run.spread[row])}`, `standard deviation of ${run.repeats} trainings`]);
    if (run.parameters[row] >= 0) facts.push(["Trainable parameters", number(run.parameters[row])]);
    const role = run.roles[row] & 1 ? "yes: the models saw its outputs or its accuracy in training" : run.roles[row] & 2 ? "yes, for validation" : "no";
    facts.push(["Labeled network", role]);
  }
  if (found.cell) {
    facts.unshift(["Cell", words(run, found.cell)]);
    facts.push(["Hash", `<code>${found.hash}</code>`]);
  }
  get("verdict").textContent = state.unknown + message;
  get("verdict").classList.toggle("problem", Boolean(found.problem));
  get("facts").innerHTML = facts.map(([name, text]) => `<dt>${name}</dt><dd>${text}</dd>`).join("");
  get("predicted").innerHTML = row === undefined ? "" : predictions(run, row);
  const idle = run.vertices - found.kept.length;
  get("pruned").innerHTML = found.cell ? `<p>${idle ? `Pruned: ${plural(idle, "vertex").replace("vertexs", "vertices")} on no path from input to output left out.` : "Every vertex lies on a path from input to output."}</p>${picture(run, found.cell)}` : "";
  const near = row !== undefined && run.outputs.get(row);
  get("outputs").innerHTML = near ? [...near].map((other) => linked(run, other)).join("")
    : `<p>${row === undefined ? "The run has no network of this drawing." : `The network of this cell was not trained: the run trained ${run.outputs.size} networks to see what they compute.`}</p>`;
  get("about").textContent = `Each dot is one of ${number(run.shown)} cells${run.shown < run.cells ? ` (the labeled networks and random others, of ${number(run.cells)})` : ""}, at the first two principal components of the training with seed ${run.training_seed}. The large ring is this cell, small rings its nearest ones by all components. Choose a dot to see its cell. Forests have ${run.trees} trees and were fitted on ${number(run.fitted)} cells.`;
  drawScale(run);
  drawCards(row);
}

window.addEventListener("hashchange", () => {
  const before = state.run;
  state = readAddress(runs, location.hash);
  if (before !== state.run) { chosen = -1; focused = 0; }
  show();
});
show();
})();
