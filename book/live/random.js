/**
 * The generator behind `torch.Generator().manual_seed(seed)` on the CPU: MT19937 (Matsumoto and Nishimura, 1998).
 * With it a seed gives the same jitter here and in the package, so a run on this page can be repeated there.
 */

const LENGTH = 624;
const OFFSET = 397;

export class MersenneTwister {
  /** @param {number} seed a whole number from 0 to 2³² − 1 */
  constructor(seed) {
    /** @private */
    this.state = new Uint32Array(LENGTH);
    /** @private */
    this.next = LENGTH;
    this.state[0] = seed >>> 0;
    for (let i = 1; i < LENGTH; i++) {
      const previous = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, previous) + i;
    }
  }

  /** @returns {number} a whole number, uniform from 0 to 2³² − 1 */
  uint32() {
    if (this.next === LENGTH) {
      this.refill();
    }
    let y = this.state[this.next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** @private */
  refill() {
    const { state } = this;
    for (let i = 0; i < LENGTH; i++) {
      const mixed = (state[i] & 0x80000000) | (state[(i + 1) % LENGTH] & 0x7fffffff);
      const twist = mixed & 1 ? 0x9908b0df : 0;
      state[i] = state[(i + OFFSET) % LENGTH] ^ (mixed >>> 1) ^ twist;
    }
    this.next = 0;
  }
}

/**
 * The shift of each iteration, as `perturb_tutorial.optimizer.jitter_shifts` draws it.
 * @param {number} iterations
 * @param {number} reach τ: shifts are 0 … τ − 1 image px
 * @param {number} seed
 * @returns {[number, number][]} (dx, dy) in image px
 */
export function jitterShifts(iterations, reach, seed) {
  const random = new MersenneTwister(seed);
  const draw = () => random.uint32() % reach;
  return Array.from({ length: iterations }, () => [draw(), draw()]);
}
