"use strict";
const form = document.getElementById("filter");
const articles = [...document.querySelectorAll("article")];
function apply() {
  const { tag, endpoint, outcome, text } = form.elements;
  const words = text.value.trim().toLowerCase();
  let shown = 0;
  for (const article of articles) {
    const outcomes = article.dataset.outcomes.trim().split(" ").map((pair) => {
      const cut = pair.lastIndexOf(":");
      return [pair.slice(0, cut), pair.slice(cut + 1)];
    });
    const fits =
      (!tag.value || JSON.parse(article.dataset.tags).includes(tag.value)) &&
      ((!endpoint.value && !outcome.value) ||
        outcomes.some(([label, result]) =>
          (!endpoint.value || label === endpoint.value) &&
          (!outcome.value || result === outcome.value))) &&
      (!words || article.textContent.toLowerCase().includes(words));
    article.hidden = !fits;
    shown += fits;
  }
  document.getElementById("count").textContent = `${shown} / ${articles.length}`;
}
form.hidden = false;
form.addEventListener("input", apply);
form.addEventListener("submit", (event) => event.preventDefault());
apply();
