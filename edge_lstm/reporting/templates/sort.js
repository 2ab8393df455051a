(function () {
  "use strict";
  var table = document.querySelector("#sortable table"), body = table.tBodies[0];
  function value(row, column) {
    var text = row.cells[column].textContent.trim().replace(/,/g, "").replace("\u2212", "-");
    return text === "\u2013" ? null : isNaN(text) ? text : Number(text);
  }
  function order(column, sign) {
    var rows = Array.from(body.rows).map(function (row) { return [value(row, column), row]; });
    rows.sort(function (one, other) {
      var a = one[0], b = other[0];
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (a < b ? -1 : a > b ? 1 : 0);
    });
    rows.forEach(function (pair) { body.appendChild(pair[1]); });
  }
  Array.from(table.tHead.rows[0].cells).forEach(function (cell, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    button.style.cssText = "font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer";
    cell.replaceChildren(button);
    button.addEventListener("click", function () {
      var up = cell.getAttribute("aria-sort") !== "ascending";
      Array.from(cell.parentNode.cells).forEach(function (c) { c.removeAttribute("aria-sort"); });
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      order(column, up ? 1 : -1);
    });
  });
})();
