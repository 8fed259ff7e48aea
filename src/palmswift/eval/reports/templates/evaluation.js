
(async () => {
  const PAGE = 50; // cases that are put into the page at a time
  const LONGEST = 1500; // pieces of a text; the comparison takes their product in memory
  const block = document.getElementById("data");
  const words = JSON.parse(document.getElementById("words").textContent);
  const report = block.type === "application/json"
    ? JSON.parse(block.textContent) : JSON.parse(await unpacked(block.textContent));
  const form = document.getElementById("filter");
  const list = document.getElementById("cases");
  const more = document.getElementById("more");
  let matching = [];
  let shown = 0;

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  }

  function both(english, chinese) {
    const parts = [element("span", "", english), element("span", "", chinese)];
    parts[0].lang = "en";
    parts[1].lang = "zh";
    return element("span", "", ...parts);
  }

  // Words of Latin letters and digits are pieces of their own, other characters one each.
  const pieces = (text) => text.match(/[\p{Script=Latin}\p{N}]+|\s+|[^]/gu) ?? [];

  function marked(from, to) {
    const [a, b] = [pieces(from), pieces(to)];
    if (from === to || a.length > LONGEST || b.length > LONGEST) return [to];
    const width = b.length + 1;
    const common = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        common[i * width + j] = a[i] === b[j] ? common[(i + 1) * width + j + 1] + 1
          : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
      }
    }
    if (common[0] < 0.3 * Math.max(a.length, b.length)) return [to]; // colours would be noise
    const parts = [];
    const add = (kind, text) => {
      const last = parts.at(-1);
      if (last && last.kind === kind) last.text += text; else parts.push({ kind, text });
    };
    let [i, j] = [0, 0];
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { add("", a[i]); i++; j++; }
      else if (j === b.length
        || (i < a.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
        add("del", a[i++]);
      } else add("ins", b[j++]);
    }
    return parts.map(({ kind, text }) => kind ? element(kind, "", text) : text);
  }

  function other(item, answer) {
    const against = form.elements.against.value;
    if (against === "reference") return item.reference;
    const label = against.slice("label:".length);
    if (!against || label === answer.of) return undefined;
    return item.answers.find((one) => one.of === label
      && (one.repeat ?? 0) === (answer.repeat ?? 0))?.text;
  }

  function answerView(item, answer) {
    const head = element("p", "head", element("b", "", answer.of),
      answer.repeat ? ` #${answer.repeat + 1} ` : " ");
    const mark = both(...words[answer.outcome]);
    mark.className = `mark ${answer.outcome}`;
    head.append(mark);
    const facts = Object.entries(answer.scores ?? {})
      .filter(([name]) => name !== "exact_match").map(([name, value]) => `${name} ${value}`);
    if (answer.seconds !== undefined) facts.push(`${answer.seconds} s`);
    if (answer.finish) facts.push(answer.finish);
    head.append(" ", element("span", "of", facts.join(" · ")));
    const view = element("div", `answer ${answer.outcome}`, head);
    if (answer.reason) view.append(element("p", "text warn", answer.reason));
    if (answer.text !== undefined) {
      const from = other(item, answer);
      const parts = from === undefined ? [answer.text] : marked(from.trim(), answer.text.trim());
      view.append(element("p", "text", ...(answer.text.trim() ? parts : [both("(empty)", "（空）")])));
    }
    if (answer.checks) {
      const signs = { passed: "✓", failed: "✗", error: "?" };
      view.append(element("ul", "checks", ...answer.checks.map(([state, kind, expected, detail]) =>
        element("li", state === "passed" ? "ok" : "bad",
          `${signs[state]} ${kind}: ${expected}${detail ? ` (${detail})` : ""}`))));
    }
    if (answer.thinking) {
      view.append(element("details", "", element("summary", "", both("thinking", "思考")),
        element("p", "text", answer.thinking)));
    }
    return view;
  }

  function caseView(item) {
    const head = element("p", "", element("code", "", item.id));
    for (const tag of item.tags ?? []) head.append(" ", element("span", "tag", tag));
    if (item.leaked) {
      const leak = both(`trained on: ${item.leaked}`, "训练数据中有");
      leak.className = "tag leak";
      head.append(" ", leak);
    }
    const view = element("article", "case", head);
    for (const [role, content] of item.messages.slice(0, -1)) {
      view.append(element("p", "text note", element("b", "", `${role} `), content));
    }
    view.append(element("p", "text question", item.messages.at(-1)[1]));
    if (item.reference !== undefined) {
      view.append(element("p", "text note", both("Reference: ", "参考答案："), item.reference));
    }
    view.append(element("div", "answers",
      ...(item.answers ?? []).map((answer) => answerView(item, answer))));
    return view;
  }

  function fits(item) {
    const value = (name) => form.elements[name]?.value ?? "";
    const [endpoint, outcome, change] = [value("endpoint"), value("outcome"), value("change")];
    const deltas = Object.entries(item.change ?? {})
      .filter(([label]) => !endpoint || label === endpoint).map(([, delta]) => delta);
    const text = value("text").trim().toLowerCase();
    return (!value("suite") || item.suite === value("suite"))
      && (!value("tag") || (item.tags ?? []).includes(value("tag")))
      && (!value("leaked") || (value("leaked") === "yes") === Boolean(item.leaked))
      && (!change || (change === "none" ? !deltas.length
        : deltas.some((delta) => (change === "worse" ? delta < 0 : delta > 0))))
      && ((!endpoint && !outcome) || (item.answers ?? []).some((answer) =>
        (!endpoint || answer.of === endpoint) && (!outcome || answer.outcome === outcome)))
      && (!text || JSON.stringify(item).toLowerCase().includes(JSON.stringify(text).slice(1, -1)));
  }

  function show() {
    list.append(...matching.slice(shown, shown + PAGE).map(caseView));
    shown = Math.min(shown + PAGE, matching.length);
    more.hidden = shown >= matching.length;
    document.getElementById("count").textContent = `${matching.length} / ${report.cases.length}`;
  }

  function apply() {
    matching = report.cases.filter(fits);
    shown = 0;
    list.replaceChildren();
    show();
  }

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", show);
  apply();
})();
