// The quizzes: a press on "Check" compares the reader's answer with those of the folded list below it, and shows the
// reason that stands there. Nothing is stored or sent.

/**
 * A number as readers write it: 0.5, 0,5, 1/2, −3, 3,842.
 * @param {string} text
 * @returns {number} NaN if it is none
 */
function numberOf(text) {
  const plain = text.replace(/[\s\u00a0\u202f]/g, "").replace(/\u2212/g, "-");
  const parts = plain.split("/");
  if (parts.length > 2 || parts.some((part) => part === "")) return NaN;
  const [over, under = 1] = parts.map((part) =>
    Number(/^-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$/.test(part) ? part.replace(/,/g, "") : part.replace(",", ".")),
  );
  const value = over / under;
  return Number.isFinite(value) ? value : NaN;
}

/**
 * The entry of the list that the reader's answer belongs to, or what to do first.
 * @param {HTMLFieldSetElement} quiz
 * @returns {HTMLElement | string}
 */
function entryOf(quiz) {
  /** @type {HTMLElement[]} */
  const entries = Array.from(quiz.querySelectorAll("li"));
  /** @type {HTMLInputElement | null} */
  const written = quiz.querySelector("input[type=text]");
  if (!written) {
    /** @type {HTMLInputElement | null} */
    const chosen = quiz.querySelector("input:checked");
    return entries.find((entry) => entry.dataset.choice === chosen?.value) ?? "Choose an answer first.";
  }
  const value = numberOf(written.value);
  if (Number.isNaN(value)) return "Write a number, such as 0.5 or 1/2.";
  const near = entries.find((entry) => {
    const distance = Math.abs(value - Number(entry.dataset.number ?? NaN));
    // What is the tolerance away in decimals may be a rounding error further in binary.
    return distance <= Number(entry.dataset.tolerance) * (1 + 1e-9);
  });
  return near ?? entries[entries.length - 1];
}

/** @param {HTMLFieldSetElement} quiz */
function prepare(quiz) {
  const button = /** @type {HTMLButtonElement} */ (quiz.querySelector("button"));
  const verdict = /** @type {HTMLElement} */ (quiz.querySelector(".quiz-verdict"));
  const reasons = /** @type {HTMLDetailsElement} */ (quiz.querySelector("details"));

  function check() {
    const entry = entryOf(quiz);
    if (typeof entry === "string") {
      verdict.dataset.result = "none";
      verdict.textContent = entry;
      return;
    }
    const right = "right" in entry.dataset;
    verdict.dataset.result = right ? "right" : "wrong";
    const sign = document.createElement("strong");
    sign.textContent = right ? "Right. " : "Not this. ";
    // A formula in the reason is drawn by now, and is copied as it is.
    const why = /** @type {HTMLElement} */ (entry.querySelector(".quiz-why")).cloneNode(true);
    verdict.replaceChildren(sign, why);
    if (right) reasons.open = true;
  }

  button.hidden = false;
  button.addEventListener("click", check);
  quiz.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target instanceof HTMLInputElement) {
      event.preventDefault();
      check();
    }
  });
  // Another answer has not been checked yet.
  quiz.addEventListener("input", () => {
    delete verdict.dataset.result;
    verdict.replaceChildren();
  });
}

for (const quiz of document.querySelectorAll("fieldset.quiz"))
  prepare(/** @type {HTMLFieldSetElement} */ (quiz));
