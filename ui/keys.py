"""Keyboard use: Ctrl+Enter generates, Esc interrupts or leaves the queue, and whatever has the focus can be seen."""

CSS = """
:is(button, input, textarea, select, a, summary, [tabindex]):focus-visible {
  outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }
"""

# Only where a person would expect it: Esc first closes what lies above the page, such as a picture or a list.
KEYS = """
<script>
document.addEventListener("keydown", (event) => {
  const press = (id) => {
    const found = document.getElementById(id);
    const button = found && (found.matches("button") ? found : found.querySelector("button"));
    if (button && !button.disabled && button.offsetParent !== null) { event.preventDefault(); button.click(); }
  };
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.shiftKey) press("generate");
  if (event.key === "Escape" && !event.defaultPrevented
      && !document.querySelector(".preview, ul.options, [role=dialog], dialog[open]")) ["stop", "leave"].forEach(press);
});
</script>
"""
