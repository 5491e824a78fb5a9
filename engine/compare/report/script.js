"use strict";
(() => {
  const root = document.documentElement;
  const all = (query, within = document) => Array.from(within.querySelectorAll(query));
  const one = (id) => document.getElementById(id);

  // Light and dark: the system's setting until the button is used.
  one("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // The strategy table: convention, states, sorting.
  const table = one("table");
  const convention = one("convention");
  const body = table.tBodies[0];
  // Of rows with the same scores the first is shown, and names the others.
  const refresh = () => {
    const states = all("input.state").filter((box) => box.checked).map((box) => box.value);
    const first = new Map();
    Array.from(body.rows).forEach((row) => {
      const cell = convention ? row.querySelector("td.n.c-" + convention.value) : row;
      const key = cell.dataset.key;
      const twin = first.get(key);
      const wanted = states.includes(row.dataset.state);
      row.hidden = !wanted || (Boolean(twin) && !one("equal").checked);
      row.querySelector(".same").textContent = "";
      if (wanted && !twin) first.set(key, { row, others: new Map() });
      if (wanted && twin && row.hidden) {
        const states = twin.others.get(row.dataset.name) || [];
        twin.others.set(row.dataset.name, [...states, row.dataset.state]);
      }
    });
    first.forEach(({ row, others }) => {
      const told = Array.from(others, ([name, states]) => (name === row.dataset.name ? "" : name + " ") + states.join(", "));
      row.querySelector(".same").textContent = told.length ? "= " + told.join("; ") : "";
    });
  };
  const sortBy = (head, kind, descending) => {
    const place = Array.from(head.parentNode.children).indexOf(head);
    const value = (row) => {
      const cell = row.children[place];
      if (kind === "text") return cell.textContent.trim().toLowerCase();
      const number = parseFloat(cell.dataset.value);
      return Number.isNaN(number) ? -Infinity : number;
    };
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1);
    const rows = Array.from(body.rows).map((row) => [value(row), row]);
    rows.sort((a, b) => order(a[0], b[0])).forEach(([, row]) => body.append(row));
    refresh();
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  };
  all("thead button", table).forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const text = button.dataset.sort === "text";
      const before = head.getAttribute("aria-sort");
      sortBy(head, button.dataset.sort, before ? before === "ascending" : !text);
    });
  });
  if (convention) {
    convention.addEventListener("change", () => {
      table.dataset.convention = convention.value;
      sortBy(table.querySelector("th.c-" + convention.value), "number", true);
    });
  }
  all("input.state, #equal").forEach((box) => box.addEventListener("change", refresh));

  // The gallery: filters, a current tile, zoom.
  const cards = all(".card");
  const zoom = one("zoom");
  let current = -1;
  let panel = 0;
  const shown = () => cards.filter((card) => !card.hidden);
  const mark = (card, focus) => {
    cards.forEach((other) => other.classList.toggle("current", other === card));
    current = cards.indexOf(card);
    if (focus) {
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "center" });
    }
  };
  const step = (by, focus) => {
    const open = shown();
    if (!open.length) return;
    const at = open.indexOf(cards[current]);
    const next = at < 0 ? (by > 0 ? 0 : open.length - 1) : Math.min(open.length - 1, Math.max(0, at + by));
    mark(open[next], focus);
  };
  const draw = () => {
    const card = cards[current];
    const panels = all(".panel", card);
    panel = (panel + panels.length) % panels.length;
    const image = panels[panel].querySelector("img");
    const big = one("zoom-image");
    big.src = image.src;
    big.alt = image.alt;
    big.classList.toggle("pixels", !panels[panel].classList.contains("image"));
    one("zoom-title").textContent = card.querySelector("h3").firstChild.textContent.trim();
    const name = panels[panel].parentNode.querySelector("figcaption").textContent;
    one("zoom-told").textContent = name + " (" + (panel + 1) + " of " + panels.length + ")";
  };
  const open = (card, at) => {
    mark(card, false);
    panel = at;
    draw();
    if (!zoom.open) zoom.showModal();
  };
  cards.forEach((card) => {
    all(".panel", card).forEach((button, at) => button.addEventListener("click", () => open(card, at)));
  });
  all(".tabs button").forEach((button) => {
    button.addEventListener("click", () => {
      const reason = button.dataset.reason;
      all(".tabs button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      cards.forEach((card) => {
        card.hidden = Boolean(reason) && !card.dataset.reasons.split(" ").includes(reason);
      });
      current = -1;
      cards.forEach((card) => card.classList.remove("current"));
    });
  });
  one("zoom-close").addEventListener("click", () => zoom.close());
  one("zoom-image").addEventListener("click", () => zoom.close());
  one("zoom-back").addEventListener("click", () => { panel -= 1; draw(); });
  one("zoom-on").addEventListener("click", () => { panel += 1; draw(); });
  zoom.addEventListener("close", () => { if (current >= 0) mark(cards[current], true); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !cards.length) return;
    if (event.target.closest("select, input, .scroll")) return;
    const keys = zoom.open
      ? {
          ArrowRight: () => { panel += 1; draw(); },
          ArrowLeft: () => { panel -= 1; draw(); },
          ArrowDown: () => { step(1, false); draw(); },
          ArrowUp: () => { step(-1, false); draw(); },
          j: () => { step(1, false); draw(); },
          k: () => { step(-1, false); draw(); },
        }
      : { j: () => step(1, true), k: () => step(-1, true) };
    if (!zoom.open && event.key === "Enter" && event.target.classList.contains("card")) keys.Enter = () => open(event.target, 0);
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
})();
