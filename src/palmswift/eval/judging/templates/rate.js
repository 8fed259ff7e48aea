"use strict";
// The rating page: shows one case at a time, keeps ratings in the browser, exports them as JSON.
const data = JSON.parse(document.getElementById("data").textContent);
const KEY = `palmswift-ratings-${data.sheet}`;
const at = (id) => document.getElementById(id);
let state = { rater: "", language: navigator.language.startsWith("zh") ? "zh" : "en", place: 0, ratings: {}, comments: {} };
let row = 0; // which (answer, rubric) of the case the digits go to

try {
  state = { ...state, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
} catch {
  // A browser that keeps nothing for files, or something unreadable: begin anew.
}

function save() {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
  } catch {
    tell("This browser keeps nothing: save before you leave · 本浏览器不能保存进度，离开前请点“保存”");
  }
}

function tell(text) {
  at("told").textContent = text;
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const item = () => data.items[state.place];
const rows = () => item().answers.flatMap((answer) => data.rubrics.map((rubric) => [answer, rubric]));
const given = (answer, rubric) => state.ratings[answer.id]?.[rubric.name];
const complete = (one) => one.answers.every((answer) => data.rubrics.every((rubric) => given(answer, rubric)));

function words(part) {
  return part[state.language] ?? Object.values(part)[0];
}

function rate(answer, rubric, rating) {
  const ratings = (state.ratings[answer.id] ??= {});
  if (rating === 0) {
    delete ratings[rubric.name];
  } else {
    ratings[rubric.name] = rating;
  }
  if (Object.keys(ratings).length === 0) delete state.ratings[answer.id];
  save();
}

function go(place) {
  state.place = Math.max(0, Math.min(data.items.length - 1, place));
  row = Math.max(0, rows().findIndex(([answer, rubric]) => !given(answer, rubric)));
  save();
  show();
  window.scrollTo(0, 0);
}

function firstOpen() {
  const found = data.items.findIndex((one) => !complete(one));
  if (found < 0) {
    tell("All are rated: save them now · 全部评完，请保存");
  } else {
    go(found);
  }
}

function field(name, text) {
  return text == null ? [] : [element("p", { className: "name", textContent: name }), element("p", { className: "text", textContent: text })];
}

function showRubric(answer, rubric, index) {
  const line = element("div", { className: index === row ? "rubric now" : "rubric" });
  line.append(element("b", { textContent: words(rubric.title) }));
  for (let rating = 1; rating <= 5; rating += 1) {
    const button = element("button", { type: "button", textContent: rating, title: words(rubric.scale)[rating - 1] });
    button.setAttribute("aria-pressed", String(given(answer, rubric) === rating));
    button.setAttribute("aria-label", `${words(rubric.title)} ${rating}: ${words(rubric.scale)[rating - 1]}`);
    button.addEventListener("click", () => {
      row = index;
      rate(answer, rubric, given(answer, rubric) === rating ? 0 : rating);
      show();
    });
    line.append(button);
  }
  const meaning = given(answer, rubric);
  if (index === row || meaning) {
    const about = meaning ? words(rubric.scale)[meaning - 1] : words(rubric.about);
    line.append(element("p", { className: "about", textContent: about }));
  }
  return line;
}

function showAnswer(answer, number) {
  const done = data.rubrics.every((rubric) => given(answer, rubric));
  const card = element("article", { className: done ? "answer done" : "answer" });
  card.append(element("h2", { textContent: `${String.fromCharCode(65 + number)}${done ? " ✓" : ""}` }));
  card.append(element("p", { className: "text", textContent: answer.text === "" ? "(empty · 空)" : answer.text }));
  data.rubrics.forEach((rubric, place) => card.append(showRubric(answer, rubric, number * data.rubrics.length + place)));
  const comment = element("textarea", { value: state.comments[answer.id] ?? "", placeholder: "comment · 评语", maxLength: 2000 });
  comment.setAttribute("aria-label", `comment ${String.fromCharCode(65 + number)}`);
  comment.addEventListener("input", () => {
    state.comments[answer.id] = comment.value;
    save();
  });
  card.append(comment);
  return card;
}

function show() {
  const finished = data.items.filter(complete).length;
  at("progress").textContent = `${state.place + 1} / ${data.items.length} · rated 已评 ${finished}`;
  at("case").replaceChildren(
    ...field("system · 系统提示", item().system),
    ...field("question · 问题", item().question),
    ...field("reference · 参考答案", item().reference),
  );
  at("answers").replaceChildren(...item().answers.map(showAnswer));
  at("previous").disabled = state.place === 0;
  at("next").disabled = state.place === data.items.length - 1;
}

function exported() {
  const answers = data.items.flatMap((one) => one.answers).filter((answer) => state.ratings[answer.id] || state.comments[answer.id]);
  return {
    kind: "palmswift blind ratings",
    version: 1,
    sheet: data.sheet,
    rater: state.rater.trim(),
    seed: data.seed,
    saved_at: new Date().toISOString(),
    answers: answers.map((answer) => ({ id: answer.id, ratings: state.ratings[answer.id] ?? {}, comment: state.comments[answer.id] ?? "" })),
  };
}

function download() {
  if (state.rater.trim() === "") {
    tell("Type your name first · 请先填写您的名字");
    at("rater").focus();
    return;
  }
  const text = JSON.stringify(exported(), null, 2);
  const link = element("a", { href: `data:application/json;charset=utf-8,${encodeURIComponent(text)}` });
  link.download = `ratings-${state.rater.trim().replace(/[^\p{L}\p{N}_-]+/gu, "_")}.json`;
  link.click();
  tell(`Saved ${link.download} · 已保存`);
}

const KEYS = {
  n: () => go(state.place + 1),
  p: () => go(state.place - 1),
  u: firstOpen,
  e: download,
  l: () => {
    state.language = state.language === "zh" ? "en" : "zh";
    save();
    show();
  },
  c: () => document.querySelectorAll("textarea")[Math.floor(row / data.rubrics.length)]?.focus(),
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
};

function move(step) {
  row = Math.max(0, Math.min(rows().length - 1, row + step));
  show();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea")) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.matches("input"))) event.target.blur();
    return;
  }
  if (/^[0-5]$/.test(event.key)) {
    const rating = Number(event.key);
    const [answer, rubric] = rows()[row];
    rate(answer, rubric, rating);
    if (rating > 0 && row < rows().length - 1) {
      row += 1;
    }
    show();
    if (rating > 0 && complete(item())) tell("This case is rated: n goes on · 本题已评，按 n 继续");
  } else if (KEYS[event.key]) {
    KEYS[event.key]();
  } else {
    return;
  }
  event.preventDefault();
});
at("rater").value = state.rater;
at("rater").addEventListener("input", () => {
  state.rater = at("rater").value;
  save();
});
at("export").addEventListener("click", download);
at("next").addEventListener("click", () => go(state.place + 1));
at("previous").addEventListener("click", () => go(state.place - 1));
at("open").addEventListener("click", firstOpen);
go(state.place);
