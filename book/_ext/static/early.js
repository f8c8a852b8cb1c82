// Runs before every other script of a page.

// The widget manager resolves its fonts against require.js's base, which would be the page's own folder.
var require = { baseUrl: document.documentElement.dataset.content_root + "_static/widgets" };

// ipywidgets asks MathJax 2's queue to typeset each label and throws where MathJax 3 has none. Labels hold plain
// Unicode, so there is nothing to typeset: every object that becomes window.MathJax gets a queue that ignores it.
(function () {
  var mathjax;
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: function () { return mathjax; },
    set: function (value) {
      if (value && !value.Hub) { value.Hub = { Queue: function () {} }; }
      mathjax = value;
    },
  });
})();
