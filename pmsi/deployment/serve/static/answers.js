import { breakable, make, post, take } from "./common.js";

const answers = document.querySelector("#answers");
let turn = Promise.resolve(); // one photograph after another, as the server does

take(document.querySelector("#files"), (files) => {
  const articles = files.map((file) => {
    const article = document.querySelector("#answer").content.cloneNode(true).firstElementChild;
    article.querySelector("h2").textContent = file.name;
    article.querySelector(".remark").textContent = "asking ...";
    turn = turn.then(() => ask(file, article));
    return article;
  });
  answers.prepend(...articles);
});

async function ask(file, article) {
  const remark = article.querySelector(".remark");
  try {
    show(await post("/answer", file), file.name, article);
  } catch (error) {
    remark.textContent = error.message;
    remark.className = "remark error";
  }
}

function show(found, name, article) {
  const title = article.querySelector("h2");
  title.replaceChildren(...breakable(found.verdict));
  title.classList.toggle("unsure", !found.sure);
  article.querySelector(".remark").textContent = found.remark ? `${name}, ${found.remark}` : name;
  addView(article, found.picture, "what the network saw");
  if (found.heat) addView(article, found.heat, `where it looked for ${found.best[0].name}`);
  for (const one of found.best) article.querySelector(".best").append(makeRow(one));
}

function addView(article, link, caption) {
  const figure = make("figure");
  const image = make("img");
  image.src = link;
  image.alt = caption;
  figure.append(image, make("figcaption", caption));
  article.querySelector(".views").append(figure);
}

function makeRow(one) {
  const row = make("li");
  const percent = `${(100 * one.confidence).toFixed(1)} %`;
  const meter = make("meter");
  meter.value = one.confidence;
  meter.textContent = percent;
  meter.setAttribute("aria-label", `confidence of ${one.name}`);
  const examples = make("div", "", "examples");
  for (const link of one.examples) {
    const image = make("img");
    image.src = link;
    image.alt = `example of ${one.name}`;
    image.addEventListener("error", () => image.remove()); // it cannot be read any more
    examples.append(image);
  }
  row.append(make("span", one.name, "name"), make("span", percent, "percent"), meter, examples);
  return row;
}
