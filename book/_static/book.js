// One button per page shows or hides all code. Without this script the code is visible.
(() => {
  const KEY = "ionas-code";
  const remembered = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
  const remember = (choice) => { try { localStorage.setItem(KEY, choice); } catch { /* private */ } };
  const root = document.documentElement;
  root.classList.toggle("ionas-hides-code", remembered() !== "shown");

  document.addEventListener("DOMContentLoaded", () => {
    const bar = document.querySelector(".article-header-buttons");
    if (!bar || !document.querySelector(".ionas-code")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "ionas-toggle";
    const say = () => {
      const hidden = root.classList.contains("ionas-hides-code");
      button.textContent = hidden ? "Show code" : "Hide code";
      button.setAttribute("aria-expanded", String(!hidden));
    };
    button.addEventListener("click", () => {
      remember(root.classList.toggle("ionas-hides-code") ? "hidden" : "shown");
      say();
    });
    say();
    bar.prepend(button);
  });
})();

// Buttons that copy code have a name for those who cannot see their picture.
addEventListener("load", () => {
  for (const button of document.querySelectorAll("button.copybtn")) button.setAttribute("aria-label", "Copy this code");
});

// Tables that are wider than their box are reached by keyboard; paper is white in the dark theme, too.
addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".pst-scrollable-table-container")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
addEventListener("beforeprint", () => {
  const { dataset } = document.documentElement, theme = dataset.theme;
  dataset.theme = "light";
  addEventListener("afterprint", () => { dataset.theme = theme; }, { once: true });
});
