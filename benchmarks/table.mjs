/** `node benchmarks/table.mjs [record.json …]`: prints records, by default the newest, as Markdown. */
import { newestRecord, readRecord } from './record.mjs';
import { renderRecord } from './report.mjs';

try {
  const paths = process.argv.slice(2);
  const records = paths.length ? paths.map(readRecord) : [newestRecord()];
  console.log(records.map(renderRecord).join('\n\n'));
} catch (error) {
  console.error(`table: ${error.message}`);
  process.exitCode = 1;
}
