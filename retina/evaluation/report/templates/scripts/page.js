// Light and dark, printing, and links into the gallery.

const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
}

function nameTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
}

byId("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
prefersDark.addEventListener("change", nameTheme);
nameTheme();

byId("print").addEventListener("click", () => print());
function drawAll() {
  showAllClasses(true);
  for (const tab of tabs) fill(tab);
  for (const panel of document.querySelectorAll("[role=tabpanel]")) hideBelow(panel);
}
addEventListener("beforeprint", drawAll);
addEventListener("afterprint", () => showAllClasses(false));
matchMedia("print").addEventListener("change", (event) => (event.matches ? drawAll() : showAllClasses(false)));

for (const link of document.querySelectorAll("a[data-tab]"))
  link.addEventListener("click", () => choose(tabs.find((tab) => tab.dataset.kind === link.dataset.tab)));

root.dataset.ready = "";
