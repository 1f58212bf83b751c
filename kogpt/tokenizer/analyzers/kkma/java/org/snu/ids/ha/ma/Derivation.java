package org.snu.ids.ha.ma;

import java.util.Arrays;
import org.snu.ids.ha.constants.POSTag;

/**
 * Replaces MExpression.derive, which joins every candidate of a head with every candidate of a tail and keeps
 * the best ones. Here only those that are kept are built.
 *
 * <p>First each pair is scored: its length found in the dictionary, its log-probability, and its hash, as
 * Kkma's MCandidate.derive would compute them. They follow from the sums of head and tail (floats are added in
 * Kkma's order). Then duplicates are dropped, MExpression.prune is applied to the scores, and Kkma's
 * MCandidate.derive builds the candidates that remain.
 */
final class Derivation {
    private static final int NONE = 0;
    private static final int JOINED = 1;
    private static final int SPACED = 2;

    private static final int KEPT = 12;
    private static final float DISTANCE = 5f;
    private static final int SHORT = 10;

    /** The cost of building a candidate in pairs, and the comparisons of hashes that cost one pair. */
    private static final long BUILT = 8;
    private static final long COMPARED = 256;

    /** Bits for the place of a pair in `order`, which also holds 10 of its length and 32 of its log-probability. */
    private static final int PLACE = 21;

    private int count;
    private int[] pairs = new int[64];
    private int[] hashes = new int[64];
    private long[] order = new long[64];
    private float[] lnpr = new float[64];
    private byte[] real = new byte[64];
    private byte[] candidate = new byte[64];

    /** Joins two lists and prunes the result. The work counts against the document's budget. */
    static MExpression derive(MExpression headList, MExpression tailList) {
        Budget budget = Budget.current();
        MExpression result = new MExpression(headList.exp + tailList.exp);
        int tailCount = tailList.size();
        if (!budget.allows(headList, tailList) || tailCount == 0) {
            return result;
        }
        Derivation scores = budget.scores;
        scores.count = 0;
        Tail[] tails = new Tail[tailCount];
        for (int j = 0; j < tailCount; j++) {
            tails[j] = new Tail(tailList.get(j));
        }
        for (int i = 0, size = headList.size(); i < size; i++) {
            Head head = budget.head(headList.get(i));
            for (int j = 0; j < tailCount; j++) {
                int link = link(head.candidate, tails[j].candidate);
                if (link != NONE) {
                    scores.add(i * tailCount + j, head, tails[j], link == JOINED);
                    budget.hold(scores.count, Budget.SCORED);
                }
            }
        }
        scores.build(result, headList, tailList);
        return result;
    }

    /** How MCandidate.derive links two candidates. */
    private static int link(MCandidate head, MCandidate tail) {
        Morpheme last = head.lastMorp;
        Morpheme first = tail.firstMorp;
        if (!head.isApndbl(tail)) {
            return head.isApndblWithSpace(tail) ? SPACED : NONE;
        }
        if (last.charSet == CharSetType.ENGLISH && last.index + last.string.length() != first.index) {
            return NONE;
        }
        boolean affixed = last.isTag(POSTag.XPN) || first.isTag(POSTag.XSN);
        return affixed && Lexicon.containNoun(null, last.string + first.string) ? NONE : JOINED;
    }

    private void add(int pair, Head head, Tail tail, boolean joined) {
        Score score = head.score(tail, joined);
        for (int k = 0; k < count; k++) {
            if (hashes[k] == score.hash) {
                return;
            }
        }
        if (count == pairs.length) {
            int size = 2 * count;
            pairs = Arrays.copyOf(pairs, size);
            hashes = Arrays.copyOf(hashes, size);
            order = Arrays.copyOf(order, size);
            lnpr = Arrays.copyOf(lnpr, size);
            real = Arrays.copyOf(real, size);
            candidate = Arrays.copyOf(candidate, size);
        }
        pairs[count] = pair;
        hashes[count] = score.hash;
        lnpr[count] = score.lnpr;
        real[count] = score.real;
        candidate[count] = score.candidate;
        int bits = Float.floatToIntBits(score.lnpr + 0f);
        long descending = ~(bits ^ bits >> 31 & Integer.MAX_VALUE) ^ Integer.MIN_VALUE;
        long length = 512 - score.real - score.candidate;
        order[count] = length << 32 + PLACE | (descending & 0xFFFFFFFFL) << PLACE | count;
        count++;
    }

    private int place(int k) {
        return (int) order[k] & (1 << PLACE) - 1;
    }

    /** MExpression.prune on the scores, longest and most likely first; then builds what remains. */
    private void build(MExpression result, MExpression heads, MExpression tails) {
        Arrays.sort(order, 0, count);
        int kept = count;
        boolean last = false;
        if (count >= 2) {
            int best = place(0);
            int length = result.exp.length();
            boolean incomplete = candidate[best] > 0 || length > real[best] + candidate[best];
            if (incomplete || count >= KEPT) {
                float limit = lnpr[best] - DISTANCE;
                kept = 1;
                while (kept < count) {
                    int k = place(kept);
                    boolean safe = incomplete && candidate[k] == 0 && kept < KEPT;
                    if (!safe && lnpr[k] < limit) {
                        break;
                    }
                    kept++;
                }
                last = incomplete && kept < count && real[place(count - 1)] == 0;
            }
        }
        Budget.current().hold(kept, Budget.KEPT);
        Budget.current().spend(BUILT * kept + (long) count * count / COMPARED);
        int tailCount = tails.size();
        for (int k = 0; k < kept; k++) {
            int pair = pairs[place(k)];
            result.add(k, heads.get(pair / tailCount).derive(tails.get(pair % tailCount)));
        }
        if (last) { // Kkma keeps the last one if none of it is known and it is short
            int pair = pairs[place(count - 1)];
            MCandidate spared = heads.get(pair / tailCount).derive(tails.get(pair % tailCount));
            if (spared.getExp().length() < SHORT) {
                result.add(kept, spared);
            }
        }
    }
}
