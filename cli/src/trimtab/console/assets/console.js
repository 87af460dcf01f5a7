// What a page does beyond being read: it follows the cluster, takes keys, copies, and changes its colours.
(() => {
  "use strict";
  const PAUSE = 30000;
  const live = document.getElementById("live");
  const mark = document.getElementById("live-mark"), stale = document.getElementById("stale");
  let source, asking = false, again = false;

  // What a person typed or ticked stays, whatever comes.
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, element) =>
    !(["value", "checked"].includes(name) && element.matches("input:not([type=hidden]), textarea"));

  // A change means: ask for the page's live part again. Two at a time never; what comes meanwhile is one more.
  async function refresh() {
    if (asking) { again = true; return; }
    asking = true;
    try {
      await htmx.ajax("GET", location.pathname + location.search, { target: "#live", swap: "morph:innerHTML" });
    } catch { // the console does not answer: told below
    } finally {
      asking = false;
      if (again) { again = false; refresh(); }
    }
  }

  // Whoever reads what is not followed any more is told so, until it is again.
  document.body.addEventListener("htmx:afterRequest", ({ detail }) => { if (detail.target === live) stale.hidden = detail.successful; });

  // Hidden tabs are not connected: browsers open six connections to one place, and nobody looks.
  function connect() {
    if (source || !live || !live.dataset.changes || document.hidden) return;
    source = new EventSource(live.dataset.changes);
    source.addEventListener("open", () => { mark.hidden = false; refresh(); }); // what changed before it was open
    source.addEventListener("error", () => {
      mark.hidden = true;
      if (source && source.readyState === EventSource.CLOSED) { disconnect(); setTimeout(connect, 5000); }
      refresh(); // does it still answer, and us?
    });
    source.addEventListener("change", refresh);
  }
  function disconnect() {
    if (source) source.close();
    source = undefined;
    if (mark) mark.hidden = true;
  }
  let hiddenSince = 0;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { hiddenSince = Date.now(); disconnect(); return; }
    connect();
    if (hiddenSince && live && live.dataset.changes) refresh();
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", connect);
  setInterval(() => { if (source && !document.hidden) refresh(); }, PAUSE); // ages go on without any change

  // Colours.
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement, now = root.dataset.theme || "";
    const next = { "": "light", light: "dark", dark: "" }[now];
    if (next) { root.dataset.theme = next; localStorage.setItem("trimtab-theme", next); }
    else { delete root.dataset.theme; localStorage.removeItem("trimtab-theme"); }
    document.querySelectorAll("trimtab-curve").forEach((each) => each.redraw());
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.querySelectorAll("trimtab-curve").forEach((each) => each.redraw()));

  // Copying.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const from = document.getElementById(button.dataset.copy);
    await navigator.clipboard.writeText(from.value === undefined ? from.textContent : from.value);
    const word = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = word; }, 1500);
  });

  // Keys.
  const keys = document.getElementById("keys");
  document.getElementById("keys-open").addEventListener("click", () => keys.showModal());
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
    if (Date.now() - going < 1500) {
      const link = [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === event.key);
      going = 0;
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    if (event.key === "g") going = Date.now();
    else if (event.key === "?") keys.showModal();
    else if (event.key === "/") { const text = document.getElementById("text"); if (text) { event.preventDefault(); text.focus(); text.select(); } }
    else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  });
  function step(by) {
    const links = [...document.querySelectorAll("table.rows td.name a")];
    if (!links.length) return;
    const at = links.indexOf(document.activeElement);
    links[Math.min(links.length - 1, Math.max(0, at + by))].focus();
  }
  document.body.dataset.ready = "true";
})();
