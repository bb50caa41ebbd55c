/** A studio for the tests: the project's real API on a loopback port, with jobs in memory behind it. */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const VENV = `${ROOT}.venv/bin/python`;
const PYTHON = process.env.PYTHON ?? (existsSync(VENV) ? VENV : "python3");

/** Start a studio; returns its address, a key that may write, ids of jobs, and how to stop it. */
export async function startStudio() {
  const program = spawn(PYTHON, ["-m", "tests.integration.clients.served"], {
    cwd: ROOT,
    env: { ...process.env, PYTHONPATH: ROOT },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const gone = new Promise((_, reject) => {
    program.once("exit", (code) => reject(new Error(`the studio did not start: ${code}`)));
  });
  gone.catch(() => {});
  const first = createInterface({ input: program.stdout })[Symbol.asyncIterator]().next();
  const told = JSON.parse((await Promise.race([first, gone])).value);
  const stop = () => new Promise((resolve) => (program.once("exit", resolve), program.stdin.end()));
  return { ...told, apiKey: "writes", stop };
}
