"use strict";
(() => {
  const PAGE = 100;
  const tests = JSON.parse(document.getElementById("tests-data").textContent);
  const body = document.getElementById("tests-body");
  const count = document.getElementById("tests-count");
  const more = document.getElementById("tests-more");
  const search = document.getElementById("tests-search");
  const outcome = document.getElementById("tests-outcome");
  const known = new Set(["passed", "failed", "errors"]);
  let found = [];
  let shown = 0;

  function cell(row, text, name) {
    const made = row.insertCell();
    made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  // An id may break where its parts meet, not in the middle of a word.
  function foldable(id) {
    return id.split(/(?<=[/_]|::)/).flatMap((part) => [part, document.createElement("wbr")]);
  }

  function extend() {
    const rows = document.createDocumentFragment();
    for (const [id, result, seconds, where] of found.slice(shown, shown + PAGE)) {
      const row = document.createElement("tr");
      cell(row, "").appendChild(Object.assign(document.createElement("span"), {
        className: "status s-" + (known.has(result) ? result : "other"), textContent: result,
      }));
      cell(row, "").append(...foldable(id));
      cell(row, where, "wide");
      cell(row, seconds.toFixed(2), "number");
      rows.appendChild(row);
    }
    body.appendChild(rows);
    shown = Math.min(shown + PAGE, found.length);
    more.hidden = shown >= found.length;
    count.textContent = found.length + " of " + tests.length + " tests"
      + (shown < found.length ? ", the first " + shown + " shown" : "");
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = tests.filter(([id, result, , where]) =>
      (!outcome.value || result === outcome.value)
      && words.every((word) => (id + " " + where).toLowerCase().includes(word)));
    body.replaceChildren();
    shown = 0;
    extend();
  }

  if (search) {
    search.addEventListener("input", filter);
    outcome.addEventListener("change", filter);
    more.addEventListener("click", extend);
    filter();
  }
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
    });
  }
})();
