package org.snu.ids.ha.ma;

import java.nio.ByteBuffer;
import org.snu.ids.ha.constants.Condition;
import org.snu.ids.ha.constants.POSTag;

/**
 * What the analysis of a token asks of the token before it: can this candidate follow any of yours?
 *
 * <p>That is all that enters an analysis from outside (MExpression.pruneWithPrev), and few of a token's candidates
 * differ in what they need. So each question is asked once, and the questions with their answers are what a cached
 * analysis depends on. Without a token before, every answer is yes.
 */
final class Context {
    private static final int MOST = 64;
    private static final long NO_SPACE_AFTER = POSTag.V | POSTag.EP | POSTag.XP;
    private static final long NO_SPACE_BEFORE = POSTag.E | POSTag.XS | POSTag.VCP | POSTag.J;
    private static final int SPACE = 1;
    private static final int ENDING = 2;
    private static final int PARTS = 4;
    private static final Interned QUESTIONS = new Interned(PARTS);

    private final long[] asked = new long[MOST * PARTS];
    private final boolean[] answers = new boolean[MOST];
    private MExpression before;
    private int count;
    private boolean complete;

    /** Begins with the candidates of the token before, or null. */
    void open(MExpression before) {
        this.before = before;
        count = 0;
        complete = true;
    }

    /** Replaces MExpression.pruneWithPrev: removes the candidates that cannot follow. */
    static void pruneWithPrev(MExpression list, MExpression before) throws Exception {
        Context context = Budget.current().context;
        if (before != context.before) { // a part that has been split off from this token
            list.pruneWithPrev(before);
            return;
        }
        int size = list.size();
        int kept = 0;
        for (int i = 0; i < size; i++) {
            MCandidate candidate = list.get(i);
            if (context.accepts(candidate)) {
                if (kept < i) {
                    list.set(kept, candidate);
                }
                kept++;
            }
        }
        while (size > kept) {
            list.remove(--size);
        }
    }

    private boolean accepts(MCandidate candidate) {
        Morpheme first = candidate.firstMorp;
        boolean spaced = !first.isTagOf(NO_SPACE_BEFORE) && !candidate.isHavingCond(Condition.SHORTEN);
        long kind = (spaced ? SPACE : 0) | (first.isTagOf(POSTag.E) ? ENDING : 0);
        long tags = candidate.atlEnc;
        long needed = candidate.cclEnc;
        long excluded = candidate.eclEnc;
        for (int i = 0, at = 0; i < count; i++, at += PARTS) {
            if (asked[at] == kind && asked[at + 1] == tags && asked[at + 2] == needed && asked[at + 3] == excluded) {
                return answers[i];
            }
        }
        boolean answer = answer(kind, tags, needed, excluded);
        if (count == MOST) {
            complete = false;
            return answer;
        }
        int at = count * PARTS;
        asked[at] = kind;
        asked[at + 1] = tags;
        asked[at + 2] = needed;
        asked[at + 3] = excluded;
        answers[count++] = answer;
        return answer;
    }

    /** MCandidate.isApndblWithSpace or MCandidate.isApndbl for any candidate before. */
    private boolean answer(long kind, long tags, long needed, long excluded) {
        int size = before == null ? 0 : before.size();
        for (int i = 0; i < size; i++) {
            MCandidate head = before.get(i);
            if ((kind & SPACE) != 0 && !head.lastMorp.isTagOf(NO_SPACE_AFTER)) {
                return true;
            }
            long having = head.hclEnc;
            if (!Condition.checkAnd(having, Condition.F)
                    && head.lastMorp.isTagOf(tags)
                    && Condition.checkAnd(having, needed)
                    && !(excluded != 0 && Condition.checkOr(having, excluded))
                    && ((kind & ENDING) == 0 || Condition.checkAnd(needed, head.bclEnc))) {
                return true;
            }
        }
        return size == 0;
    }

    /** Writes all questions with their answers, as shorts, and their number before them. False if they do not fit. */
    boolean write(ByteBuffer record) {
        record.put((byte) count);
        for (int i = 0, at = 0; i < count; i++, at += PARTS) {
            int number = QUESTIONS.number(asked[at], asked[at + 1], asked[at + 2], asked[at + 3]);
            if (number < 0) {
                return false;
            }
            record.putShort((short) (number << 1 | (answers[i] ? 1 : 0)));
        }
        return complete;
    }

    /** Whether the questions of a record, written at this place, have the same answers here. */
    boolean agrees(ByteBuffer record, int at, int questions) {
        for (int i = 0; i < questions; i++) {
            int question = record.getShort(at + 2 * i);
            int number = question >> 1;
            boolean answer = answer(
                    QUESTIONS.part(number, 0),
                    QUESTIONS.part(number, 1),
                    QUESTIONS.part(number, 2),
                    QUESTIONS.part(number, 3));
            if (answer != ((question & 1) != 0)) {
                return false;
            }
        }
        return true;
    }
}
