// Before anything is drawn: the colours that were chosen in this browser.
(() => {
  "use strict";
  const chosen = localStorage.getItem("trimtab-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
