/** No program: a function that somebody forgot to wrap in `fn`. */
export const capital = () => 'Paris';
