export * from './index.js';
export { SessiondStore as default } from './index.js';
