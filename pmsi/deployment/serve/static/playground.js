import { make, post, take } from "./common.js";

const form = document.querySelector("#dials");
const cards = document.querySelector("#cards");
const plans = document.querySelector("#plans");
const problem = document.querySelector(".error");
const pictures = { photo: null, partner: null };
let seed = Number(document.querySelector("#seed").textContent);
let busy = false, again = false;

for (const which of ["photo", "partner"]) {
  const input = document.querySelector(`#${which}`);
  take(input, ([file]) => attempt(async () => {
    const found = await post("/photo", file);
    pictures[which] = found.picture;
    input.parentElement.querySelector("span").textContent = found.remark ? `${file.name}, ${found.remark}` : file.name;
    await draw();
  }));
}
form.addEventListener("input", (event) => { if (event.target.type === "range") { write(); attempt(draw); } });
plans.addEventListener("change", () => cards.classList.toggle("plain", !plans.checked));
document.querySelector("#again").addEventListener("click", () => {
  seed += 1;
  document.querySelector("#seed").textContent = seed;
  attempt(draw);
});
write();

function write() {
  for (const input of form.querySelectorAll("[type=range]")) {
    input.parentElement.querySelector("output").textContent = input.value;
  }
}

async function attempt(work) {
  problem.hidden = true;
  try {
    await work();
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  }
}

// One request at a time; a slider that moved meanwhile is asked about once more.
async function draw() {
  if (!pictures.photo) return;
  if (busy) { again = true; return; }
  busy = true;
  try {
    do {
      again = false;
      const dials = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, Number(value)]));
      show((await post("/augment", JSON.stringify({ ...pictures, ...dials, seed }))).cards);
    } while (again);
  } finally {
    busy = false;
  }
}

function show(found) {
  form.hidden = false;
  document.querySelector("#legend").hidden = false;
  const own = makeCard({ name: "the photograph", picture: pictures.photo });
  const sources = [own];
  if (pictures.partner) sources.push(makeCard({ name: "its partner", picture: pictures.partner }));
  const made = found.map((one) => {
    const card = makeCard(one);
    drawPlan(card, one, own, sources[1]);
    return card;
  });
  cards.replaceChildren(...sources, ...made);
}

function makeCard(one) {
  const card = document.querySelector("#card").content.cloneNode(true).firstElementChild;
  card.querySelector("h2").textContent = one.name;
  const image = card.querySelector("img");
  image.src = one.picture;
  image.alt = one.name;
  const lines = card.querySelector("pre");
  const copy = card.querySelector(".copy");
  if (!one.code) { lines.remove(); copy.remove(); return card; }
  lines.textContent = one.code;
  lines.title = one.import;
  if (one.weights) {
    const [own, partner] = one.weights.map((weight) => weight.toFixed(2));
    card.querySelector(".weights").textContent = `label: own ${own}, partner ${partner}`;
  } else {
    card.querySelector(".weights").textContent = "label: stays";
  }
  copy.addEventListener("click", async () => {
    const text = `${one.import}\n${one.code}`;
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch { // a browser that forbids it: the text is selected instead
      getSelection().selectAllChildren(lines);
      copy.textContent = "Press Ctrl-C";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  return card;
}

function drawPlan(card, { plan }, own, partner) {
  const svg = card.querySelector("svg");
  svg.setAttribute("viewBox", `0 0 ${plan.side} ${plan.side}`);
  const tile = Math.floor(plan.side / plan.grid);
  if (plan.grid > 1) {
    plan.tiles.forEach((source, place) => {
      const [y, x] = [Math.floor(place / plan.grid) * tile, (place % plan.grid) * tile];
      const cell = addRectangle(svg, y, x, y + tile, x + tile, "tile");
      const [fromY, fromX] = [Math.floor(source / plan.grid) * tile, (source % plan.grid) * tile];
      cell.addEventListener("pointerenter", () => point(own, plan.side, fromY, fromX, tile));
      cell.addEventListener("pointerleave", () => own.querySelector("svg").replaceChildren());
      if (tile >= 30) addText(svg, y + tile / 2, x + tile / 2, source + 1, Math.min(18, tile / 2.5));
    });
  }
  if (plan.overlay) {
    addRectangle(svg, ...plan.overlay.to, "box");
    const percent = Math.round(100 * plan.overlay.opacity);
    if (percent < 100) addText(svg, plan.side / 2, plan.side / 2, `${percent} % partner`, 22);
    if (partner && percent === 100) {
      card.addEventListener("pointerenter", () => {
        const svg = partner.querySelector("svg");
        svg.setAttribute("viewBox", `0 0 ${plan.side} ${plan.side}`);
        addRectangle(svg, ...plan.overlay.from, "box");
      });
      card.addEventListener("pointerleave", () => partner.querySelector("svg").replaceChildren());
    }
  }
}

function point(card, side, y, x, tile) {
  const svg = card.querySelector("svg");
  svg.setAttribute("viewBox", `0 0 ${side} ${side}`);
  svg.replaceChildren();
  addRectangle(svg, y, x, y + tile, x + tile, "box");
}

function addRectangle(svg, y0, x0, y1, x1, name) {
  return addShape(svg, "rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: name });
}

function addText(svg, y, x, words, size) {
  addShape(svg, "text", { x, y, "font-size": size }).textContent = words;
}

function addShape(svg, tag, values) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(values)) shape.setAttribute(name, value);
  svg.append(shape);
  return shape;
}
