/** `node benchmarks/table.mjs [record.json]`: prints a record, by default the newest, as Markdown. */
import { newestRecord, readRecord } from './record.mjs';
import { renderRecord } from './report.mjs';

try {
  const [path] = process.argv.slice(2);
  console.log(renderRecord(path ? readRecord(path) : newestRecord()));
} catch (error) {
  console.error(`table: ${error.message}`);
  process.exitCode = 1;
}
