// Asks models side by side, and keeps what a person prefers until they store or download it. What models say is text and no more.
(() => {
  "use strict";
  const form = document.getElementById("asking");
  if (!form) return;
  const at = (id) => document.getElementById(id);
  const preferences = []; // {question, completion, better, texts}: the whole answers that differ, `better` one of them or none
  let asked, leave, downloaded = 0, stored = 0, storing = false;

  const chosen = () => [...form.querySelectorAll("input[name=model]:checked")];
  const show = (id, shown) => { at(id).hidden = !shown; };

  function shuffled(list) {
    const order = [...list];
    for (let last = order.length - 1; last > 0; last--) {
      const other = crypto.getRandomValues(new Uint32Array(1))[0] % (last + 1);
      [order[last], order[other]] = [order[other], order[last]];
    }
    return order;
  }

  function refuse(sentence) {
    at("refused").textContent = sentence;
    show("refused", Boolean(sentence));
  }

  // One card for each model; of a blind question without a name, until a preference is given.
  function lay(models, blind) {
    const cards = models.map((model, place) => {
      const card = at("an-answer").content.cloneNode(true).firstElementChild;
      card.querySelector("h3").textContent = blind ? `Answer ${place + 1}` : model.name;
      card.querySelector("small").textContent = blind ? "" : model.word;
      card.querySelector(".better").addEventListener("click", () => prefer(place));
      return card;
    });
    at("answers").replaceChildren(...cards);
    return cards;
  }

  function reveal() {
    asked.cards.forEach((card, place) => {
      const { name, word } = asked.models[place], { revision, seconds, problem } = asked.ends[place] || {};
      card.querySelector("h3").textContent = name;
      card.querySelector("small").textContent = [word, revision && revision !== name ? revision : "", seconds === undefined ? "" : `${seconds} s`].filter(Boolean).join(" · ");
      if (problem) { const told = card.querySelector(".notice"); told.textContent = problem; told.hidden = false; }
    });
  }

  function hear(told) {
    const card = asked.cards[told.place];
    if (!card) return;
    if (told.word !== undefined) {
      asked.texts[told.place] += told.word;
      card.querySelector(".said").textContent = asked.texts[told.place];
    } else {
      asked.ends[told.place] = told;
      if (told.problem) { const broken = card.querySelector(".notice"); broken.textContent = "It did not answer to the end."; broken.hidden = false; }
    }
  }

  function ended() {
    const whole = asked.models.map((_, place) => asked.ends[place] && !asked.ends[place].problem && asked.texts[place].trim());
    asked.whole = whole;
    const choice = whole.filter(Boolean).length > 1 && new Set(asked.texts.filter((_, place) => whole[place])).size > 1;
    asked.cards.forEach((card, place) => { card.querySelector(".better").hidden = !(choice && whole[place]); });
    show("verdict", choice);
    if (!choice || !asked.blind) reveal();
    at("told").textContent = choice ? "" : "There is nothing to prefer: fewer than two whole answers that differ.";
  }

  // The rows of training. Pairs: the better answer against each other one. Labels: every answer, and whether it was the better.
  function linesOf({ question, completion, better, texts }) {
    const turn = (role, content) => completion ? content : [{ role, content }], prompt = turn("user", question);
    const answer = (text) => turn("assistant", text);
    const rows = at("rows-as").value === "UnpairedPreference"
      ? texts.map((text) => ({ prompt, completion: answer(text), label: text === better }))
      : better === null ? [] : texts.filter((text) => text !== better).map((text) => ({ prompt, chosen: answer(better), rejected: answer(text) }));
    return rows.map((row) => JSON.stringify(row));
  }

  function prefer(place) {
    const { question, completion, texts, whole } = asked;
    const differ = [...new Set(texts.filter((_, each) => whole[each]))];
    preferences.push({ question, completion, better: place < 0 ? null : texts[place], texts: differ });
    const found = linesOf(preferences.at(-1)).length;
    settle(place, found ? `Noted: ${found} ${found === 1 ? "row" : "rows"}.` : "Noted as neither: it gives no row of pairs.");
  }

  function settle(better, told) {
    asked.cards.forEach((card, place) => { card.querySelector(".better").hidden = true; card.classList.toggle("is-better", place === better); });
    show("verdict", false);
    reveal();
    at("told").textContent = told;
    count();
  }

  function count() {
    const rows = preferences.flatMap(linesOf).length;
    at("count").textContent = `${rows} ${rows === 1 ? "row" : "rows"}`;
    at("download").disabled = !rows;
    show("kept", preferences.length > 0);
    at("forget").disabled = storing || preferences.length <= stored;
    if (at("store")) at("store").disabled = storing || !preferences.slice(stored).flatMap(linesOf).length;
  }

  async function ask() {
    const models = chosen().map((each) => ({ name: each.value, word: each.dataset.word }));
    refuse("");
    if (!models.length || models.length > Number(form.dataset.most)) { refuse(`Choose 1 to ${form.dataset.most} models.`); return; }
    const blind = at("blind").checked && models.length > 1, order = blind ? shuffled(models) : models;
    const body = new URLSearchParams(new FormData(form));
    body.delete("model");
    body.set("models", order.map((each) => each.name).join("\n"));
    if (leave) leave.abort();
    const leaving = leave = new AbortController();
    asked = { models: order, blind, question: form.elements.question.value, completion: form.elements.completion.checked, texts: order.map(() => ""), ends: {}, whole: [], cards: lay(order, blind) };
    const mine = asked;
    show("said-section", true); show("verdict", false); show("stop", true);
    at("told").textContent = "Asking …";
    at("ask").disabled = true;
    try {
      const answer = await fetch(form.action, { method: "POST", body, signal: leaving.signal });
      if (!answer.ok) {
        const told = answer.headers.get("content-type").startsWith("application/json") ? await answer.json() : { sentence: `the console said ${answer.status}` };
        refuse([told.sentence, told.next_step].filter(Boolean).join(": "));
        show("said-section", false);
        at("told").textContent = "";
        return;
      }
      let begun = "", over = false;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const events = (begun + part.value).split("\n\n");
        begun = events.pop();
        for (const event of events) {
          if (event.startsWith("event: end")) over = true;
          else if (event.startsWith("data: ")) hear(JSON.parse(event.slice(6)));
        }
      }
      if (!over) throw new Error("the console broke off");
      ended();
    } catch (error) {
      if (mine !== asked) return;
      reveal();
      at("told").textContent = leaving.signal.aborted ? "Stopped: an answer that is not whole is not compared." : `It broke off: ${error.message}.`;
    } finally {
      if (mine === asked) { at("ask").disabled = false; show("stop", false); }
    }
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  at("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !at("ask").disabled) { event.preventDefault(); form.requestSubmit(); }
  });
  at("stop").addEventListener("click", () => leave.abort());
  at("neither").addEventListener("click", () => prefer(-1));
  at("forget").addEventListener("click", () => { preferences.pop(); downloaded = Math.min(downloaded, preferences.length); count(); });
  at("download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(preferences.flatMap(linesOf).map((line) => `${line}\n`), { type: "application/jsonl" }));
    link.download = `preferences-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.jsonl`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    downloaded = preferences.length;
  });

  // Each preference is an object of its own; what was stored is not sent again, and what was not stays here.
  async function store() {
    const told = (sentence, bad) => { at("stored").textContent = sentence; at("stored").classList.toggle("bad", Boolean(bad)); show("stored", true); };
    storing = true; // one after the other: what is preferred meanwhile is stored last
    count();
    try {
      let sent = 0;
      for (; stored < preferences.length; stored++) {
        const lines = linesOf(preferences[stored]);
        if (!lines.length) continue;
        const body = new URLSearchParams({ form_token: form.elements.form_token.value, format: at("rows-as").value, rows: lines.join("\n") });
        const answer = await fetch(at("store").dataset.action, { method: "POST", body });
        const said = (answer.headers.get("content-type") || "").startsWith("application/json") ? await answer.json() : { sentence: `the console said ${answer.status}` };
        if (!answer.ok) { told(`Not stored: ${[said.sentence, said.next_step].filter(Boolean).join(": ")}.`, true); return; }
        sent += said.rows;
        told(`Stored: ${sent} ${sent === 1 ? "row" : "rows"}, the last in ${said.uri}.`);
      }
    } catch (error) {
      told(`Not stored: ${error.message}. What is not stored is here still.`, true);
    } finally {
      storing = false;
      count();
    }
  }
  if (at("store")) at("store").addEventListener("click", store);
  at("rows-as").addEventListener("change", () => {
    document.querySelectorAll("#kept [data-of]").forEach((each) => { each.hidden = each.dataset.of !== at("rows-as").value; });
    count();
  });
  // Rows that nobody has stored or downloaded would go with the tab.
  addEventListener("beforeunload", (event) => { if (preferences.length > Math.max(downloaded, stored)) event.preventDefault(); });
})();
