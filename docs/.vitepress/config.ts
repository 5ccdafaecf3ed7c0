/** The site: pages of the guide, the examples, and the API's reference, which `typedoc` writes into `api/`. */
import { defineConfig } from 'vitepress';

const guide = [
  ['Start', 'start'],
  ['The language', 'language'],
  ['From Python', 'from-python'],
  ['Backends', 'backends'],
  ['Constrained output', 'constrained'],
  ['Pictures', 'images'],
  ['Embeddings and scores', 'embeddings'],
  ['Streaming', 'streaming'],
  ['Batching', 'batching'],
  ['Traces', 'traces'],
  ['The cache and the queue', 'scheduling'],
  ['Testing your programs', 'testing'],
  ['The command line', 'command-line'],
] as const;

export default defineConfig({
  title: 'SGLang for TypeScript',
  description: 'A structured generation language for programs that call language models, and a fast runtime.',
  // Decisions are for those who change the project; they are read in the repository.
  srcExclude: ['decisions/**'],
  cleanUrls: true,
  themeConfig: {
    nav: [
      { text: 'Guide', link: '/guide/start' },
      { text: 'Examples', link: '/examples' },
      { text: 'API', link: '/api/' },
    ],
    sidebar: [
      { text: 'Guide', items: guide.map(([text, page]) => ({ text, link: `/guide/${page}` })) },
      { text: 'Examples', link: '/examples' },
      {
        text: 'API',
        link: '/api/',
        items: ['sglang', 'testing', 'ai-sdk'].map((name) => ({ text: name, link: `/api/${name}` })),
      },
    ],
    outline: [2, 3],
    search: { provider: 'local' },
  },
});
