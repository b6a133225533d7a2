"use strict";

const part = (id) => document.getElementById(id);

function say(text, isError = false) {
  part("status").textContent = text;
  part("status").hidden = !text;
  part("status").classList.toggle("error", isError);
}

function show(answer, milliseconds) {
  const { picture, ...plain } = answer;
  const steps = Object.entries(plain.milliseconds).map(([name, time]) => `${name} ${time.toFixed(1)} ms`);
  part("picture").src = picture;
  part("summary").textContent = plain.summary;
  part("time").textContent = `${plain.width} × ${plain.height}; ${steps.join(", ")}; there and back ${milliseconds.toFixed(0)} ms`;
  part("json").textContent = JSON.stringify(plain, null, 1);
  part("result").hidden = part("plain").hidden = false;
}

async function send(file) {
  part("result").hidden = part("plain").hidden = true;
  say(`${file.name} …`);
  const start = performance.now();
  try {
    const response = await fetch("predict?picture=true", { method: "POST", body: file });
    const answer = await response.json();
    if (response.ok) {
      show(answer, performance.now() - start);
      say("");
    } else {
      say(answer.error, true);
    }
  } catch (error) {
    say(`The service can't be reached: ${error.message}`, true);
  }
}

const drop = part("drop");
part("file").addEventListener("change", (event) => {
  if (event.target.files.length) send(event.target.files[0]);
  event.target.value = "";  // the same file again is a change, too
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();  // else the browser would open a file that falls beside the field
    drop.classList.toggle("over", kind === "dragover");
  });
}
document.addEventListener("drop", (event) => {
  if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});
for (const place of document.querySelectorAll(".here")) place.textContent = location.origin;
