/* A classic script, because browsers run no modules from file://. It shows the line itself, as nothing else runs. */
if (location.protocol === "file:") {
  document.addEventListener("DOMContentLoaded", () => {
    const line = document.createElement("p");
    line.setAttribute("role", "alert");
    line.textContent =
      "This page was opened as a file, from which browsers load no modules. Serve its folder with any web server, " +
      "for example: python3 -m http.server --directory FOLDER";
    document.body.replaceChildren(line);
  });
}
