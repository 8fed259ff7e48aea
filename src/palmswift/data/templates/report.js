"use strict";
const choices = document.querySelectorAll('input[name="language"]');
const key = "palmswift-language";
function show(language) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const choice of choices) choice.checked = choice.value === language;
}
function remembered() {
  try { return localStorage.getItem(key); } catch { return null; } // a file may be kept from it
}
show(remembered() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"));
for (const choice of choices) {
  choice.addEventListener("change", () => {
    show(choice.value);
    try { localStorage.setItem(key, choice.value); } catch { /* the choice lasts for this page */ }
  });
}
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
